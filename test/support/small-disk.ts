/** A disk that is soon full, or can be read alone. */
import { mkdirSync } from "node:fs";

/** A file system of its own in a folder, until it is disposed of. */
export class SmallDisk implements Disposable {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Makes the folder where there is none. Null where there is no right to mount, which root in a container may not have either.
   * @param size as of mount: "64k"
   */
  static mount(folder: string, size: string): SmallDisk | null {
    mkdirSync(folder, { recursive: true });
    const { success } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", folder]);
    return success ? new SmallDisk(folder) : null;
  }

  /** As a disk becomes on which the kernel has found errors; false where that could not be. */
  makeReadOnly(): boolean {
    // Over itself: of its own it would not, as long as some file is open.
    const commands = [
      ["--bind", this.#folder, this.#folder],
      ["-o", "remount,bind,ro", this.#folder],
    ];
    return commands.every((command) => Bun.spawnSync(["mount", ...command]).success);
  }

  [Symbol.dispose](): void {
    // What lies over it, too.
    Bun.spawnSync(["umount", "--lazy", "--recursive", this.#folder]);
    Bun.spawnSync(["umount", "--lazy", this.#folder]);
  }
}
