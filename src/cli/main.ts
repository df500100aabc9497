/** The command line: arguments in, terminal lines and exit codes out. */
import { Command } from "commander";
import { CertificateError } from "../manager/certificate.ts";
import { ControlError } from "../manager/control-client.ts";
import { StartError } from "../manager/start-error.ts";
import { OptionError } from "../options.ts";
import { VERSION } from "../version.ts";
import { doctorCommand } from "./doctor.ts";
import { reloadCommand } from "./reload.ts";
import { serveCommand } from "./serve.ts";
import { statusCommand } from "./status.ts";
import { stopCommand } from "./stop.ts";

const program = new Command("tercet")
  .description("A multi-process HTTP application server for TypeScript: HTTP/1.1, HTTP/2 and HTTP/3.")
  .version(VERSION)
  .configureOutput({
    // What may have been meant stands in a line of its own.
    outputError: (text, write) => write(`tercet: ${text.replace(/^error: /, "").replace(/\n(?=.)/g, " ")}`),
  })
  .addCommand(serveCommand())
  .addCommand(reloadCommand())
  .addCommand(stopCommand())
  .addCommand(statusCommand())
  .addCommand(doctorCommand());
for (const command of program.commands) command.copyInheritedSettings(program);

try {
  await program.parseAsync();
} catch (error) {
  const expected = [OptionError, CertificateError, StartError, ControlError].some(
    (kind) => error instanceof kind,
  );
  // One line for what the user can mend; the whole stack for a fault of ours.
  console.error(
    `tercet: ${expected ? (error as Error).message : error instanceof Error ? error.stack : error}`,
  );
  process.exit(1);
}
