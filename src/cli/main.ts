/** The command line: arguments in, terminal lines and exit codes out. */
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { CertificateError } from "../manager/certificate.ts";
import { StartError } from "../manager/manager.ts";
import { OptionError } from "../options.ts";
import { serveCommand } from "./serve.ts";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const program = new Command("tercet")
  .description("A multi-process HTTP application server for TypeScript: HTTP/1.1, HTTP/2 and HTTP/3.")
  .version(version)
  .configureOutput({ outputError: (text, write) => write(`tercet: ${text.replace(/^error: /, "")}`) })
  .addCommand(serveCommand());

try {
  await program.parseAsync();
} catch (error) {
  const expected =
    error instanceof OptionError || error instanceof CertificateError || error instanceof StartError;
  // One line for what the user can mend; the whole stack for a fault of ours.
  console.error(`tercet: ${expected ? error.message : error instanceof Error ? error.stack : error}`);
  process.exit(1);
}
