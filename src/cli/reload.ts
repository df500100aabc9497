/** `tercet reload`: has a running server load its code anew, and says how it went. */
import { Command } from "commander";
import { ANSWER_TIMEOUT, connectTo, type ServerFlags, withServerFlags } from "./running-server.ts";

export function reloadCommand(): Command {
  return withServerFlags(new Command("reload"))
    .description(
      "have a running server load its code and its certificate anew; where that fails the old still serve",
    )
    .action(reload);
}

async function reload(flags: ServerFlags): Promise<void> {
  using client = await connectTo(flags);
  // One that stands still is not asked: it would reload when it goes on, and nobody wait for it.
  await client.ask("status", ANSWER_TIMEOUT);
  const began = performance.now();
  // How long it may take is the server's `reloadTimeout`.
  await client.whileItAnswers(client.ask("reload", 0), ANSWER_TIMEOUT);
  console.log(`tercet: reloaded in ${((performance.now() - began) / 1000).toFixed(1)} s`);
}
