/** How many connections a process can have, and still open something else. Linux; on another system it is not known. */
import { readFileSync } from "node:fs";

/** @param spare descriptors that are left for what is no connection, but not more than half of all; 0 for no limit */
export function mostConnections(spare: number): number {
  if (spare === 0) return Number.POSITIVE_INFINITY;
  const limit = descriptorLimit();
  return limit - Math.min(spare, Math.floor(limit / 2));
}

/** The one that is in force. */
function descriptorLimit(): number {
  try {
    const [, limit] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1")) ?? [];
    return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
