/** `tercet stop`: has a running server finish what it has and end, and waits for that. */
import { Command } from "commander";
import { ANSWER_TIMEOUT, connectTo, type ServerFlags, withServerFlags } from "./running-server.ts";

export function stopCommand(): Command {
  return withServerFlags(new Command("stop"))
    .description("have a running server finish its requests (up to its shutdownTimeout) and end; wait for it")
    .action(stop);
}

async function stop(flags: ServerFlags): Promise<void> {
  using client = await connectTo(flags);
  await client.ask("stop", ANSWER_TIMEOUT);
  await client.whileItAnswers(client.closed, ANSWER_TIMEOUT);
  console.log("tercet: stopped");
}
