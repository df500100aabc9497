/** What would keep a server from starting, found before any process is there. */
import { bindTcp, bindUdp } from "../listeners/ports.ts";
import type { ManagerConfig } from "./configs.ts";
import { MAX_SOCKET_PATH_BYTES } from "./libc.ts";
import { StartError } from "./start-error.ts";

/** @throws {StartError} */
export function checkSocketPath(path: string): void {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw new StartError(
      `the unix socket ${path} has a longer path than ${MAX_SOCKET_PATH_BYTES} bytes: choose another --run-dir`,
    );
  }
}

/** @throws {StartError} */
export function checkRuntime({ options, certificates }: ManagerConfig): void {
  if (certificates === null || options.http3 === "off" || process.versions.bun !== undefined) return;
  throw new StartError(
    `HTTP/3 needs Bun, and this is Node.js ${process.version}: run it by Bun, or choose http3 "off" (--http3 off)`,
  );
}

/**
 * Who shares a port would share it with a stranger too: whether it is free is asked without SO_REUSEPORT.
 * @throws {StartError} (as a rejection)
 */
export async function checkPortIsFree({ host, port, options, certificates }: ManagerConfig): Promise<void> {
  const isShared = options.mode === "base" || options.reactors > 1;
  if (port === 0 || !isShared) return;
  try {
    await bindTcp(host, port);
    if (certificates !== null && options.http3 !== "off") await bindUdp(host, port);
  } catch (error) {
    if ((error as { code?: string }).code !== "EADDRINUSE") return;
    throw new StartError(`port ${port} on ${host} is in use`, { cause: error });
  }
}
