/** A disk that is soon full. */

/** A file system of its own in a folder, until it is disposed of. */
export class SmallDisk implements Disposable {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Null where there is no right to mount, which root in a container may not have either.
   * @param size as of mount: "64k"
   */
  static mount(folder: string, size: string): SmallDisk | null {
    const { success } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", folder]);
    return success ? new SmallDisk(folder) : null;
  }

  [Symbol.dispose](): void {
    Bun.spawnSync(["umount", "--lazy", this.#folder]);
  }
}
