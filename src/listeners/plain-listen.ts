/** Has a server of Bun's `node:http` listen: Bun makes one by `Bun.serve`, but hands neither `reusePort` to it nor its `stop` on. */
import type { Server } from "node:net";
import type { ListenerOptions } from "./listener.ts";

/** @returns what takes no more connections, and closes none */
export function listenPlain(
  server: Server,
  { host, port, reusePort }: Pick<ListenerOptions, "host" | "port" | "reusePort">,
): () => void {
  const { serve } = Bun;
  let listening: ReturnType<typeof serve> | undefined;
  // It is called before `listen` returns.
  Bun.serve = ((options: Parameters<typeof serve>[0]) => {
    listening = serve({ ...options, reusePort } as typeof options);
    return listening;
  }) as typeof serve;
  try {
    server.listen(port, host);
  } finally {
    Bun.serve = serve;
  }
  return () => void listening?.stop();
}
