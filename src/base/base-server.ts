/** A worker of the mode `base`: its listeners, and the host that runs the handler on what they bring. */

import { now } from "../clock.ts";
import type { ConnectionInfo } from "../connection.ts";
import type { Protocol } from "../exchange.ts";
import { FileAnswers } from "../files/file-answers.ts";
import type { ExchangeHandler } from "../handler/run.ts";
import type { Listener } from "../listeners/listener.ts";
import { connectionOf, type ListenConfig, openListeners } from "../listeners/open.ts";
import type { FolderOptions } from "../manager/folders.ts";
import type { ExchangeCounts } from "../manager/messages.ts";
import type { ResolvedStatic } from "../options.ts";
import { checkRegularly } from "../reactor/regular-check.ts";
import type { HandlerSettings } from "../worker/handler-exchange.ts";
import { type BaseEvents, BaseHost, type BaseLimits } from "./base-host.ts";

export interface BaseConfig {
  readonly limits: BaseLimits;
  readonly static: readonly ResolvedStatic[];
  /** Folders that it checks, where it has become another user; null for none. */
  readonly folders: FolderOptions | null;
  /** What it removes where the manager has gone. */
  readonly remains: string;
}

export class BaseServer {
  readonly #host: BaseHost;
  #listeners: readonly Listener[] = [];

  static async make(
    handler: ExchangeHandler,
    settings: HandlerSettings,
    config: BaseConfig,
    maxRequests: number,
    events: BaseEvents,
  ): Promise<BaseServer> {
    const host = new BaseHost(handler, settings, config.limits, maxRequests, events);
    if (config.static.length > 0) {
      // Loaded where it is used: it brings a table of a thousand types.
      const { StaticFiles } = await import("../files/static.ts");
      host.files = new FileAnswers(new StaticFiles(config.static));
    }
    checkRegularly(config.limits.requestTimeout, (now) => host.expire(now));
    return new BaseServer(host);
  }

  private constructor(host: BaseHost) {
    this.#host = host;
  }

  /** Rejects with the system's error: see `reasonOf`. */
  async listen(
    config: ListenConfig,
  ): Promise<{ readonly port: number; readonly protocols: readonly Protocol[] }> {
    this.#listeners = await openListeners(config, this.#host);
    const [{ port }] = this.#listeners as [Listener];
    return { port, protocols: this.#listeners.flatMap(({ protocols }) => protocols) };
  }

  connection(id: string): ConnectionInfo | null {
    return connectionOf(this.#listeners, id);
  }

  counts(): { readonly inFlight: number; readonly requests: number } {
    return { inFlight: this.#host.registry.size - this.#host.queued, requests: this.#host.requests };
  }

  /** @param detailed with every exchange in flight */
  exchangeCounts(detailed: boolean): ExchangeCounts {
    const { registry } = this.#host;
    return {
      inFlight: registry.size,
      queued: this.#host.queued,
      droppedFrames: 0,
      protocols: registry.counts(),
      exchanges: detailed ? registry.snapshot(now()) : [],
    };
  }

  /**
   * Takes no more connections; resolves when those that there are have ended.
   * @param gently another worker has taken over: what these still ask is answered
   */
  async drain(gently: boolean): Promise<void> {
    const listeners = Promise.all(this.#listeners.map((listener) => listener.drain(gently)));
    if (gently) await listeners;
    await Promise.all([listeners, this.#host.drain()]);
  }

  /** Closes everything at once. */
  async close(): Promise<void> {
    this.#host.close();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
  }
}
