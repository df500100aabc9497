/** The reactor process: does what the manager says, and joins the reactor to its sockets. */
import { createServer } from "node:net";
import { dirname } from "node:path";
import { now } from "../clock.ts";
import { FileAnswers } from "../files/file-answers.ts";
import type { Certificates, Listener } from "../listeners/listener.ts";
import { connectionOf, openListeners, reasonOf } from "../listeners/open.ts";
import { logTo, logUncaught } from "../log.ts";
import { type ReactorConfig, type ReactorCounts, type ToReactor, tellManager } from "../manager/messages.ts";
import { dropPrivileges } from "../manager/privileges.ts";
import { remove } from "../removal.ts";
import { OwnVitals } from "../vitals.ts";
import { dispatchPolicy } from "./dispatch-policy.ts";
import { Reactor } from "./reactor.ts";
import { checkRegularly } from "./regular-check.ts";
import type { WorkerLink } from "./worker-link.ts";

/** Milliseconds between two reports of requests that wait. */
const REPORT_INTERVAL = 100;

function start(config: ReactorConfig): void {
  const log = logTo(`reactor ${config.id}`);
  const vitals = new OwnVitals(log);
  const reactor = new Reactor({
    limits: config.limits,
    policy: dispatchPolicy<WorkerLink>(config.dispatch, !config.isElastic, log),
    runDirectory: dirname(config.socketPath),
    stuck: (pid) => tellManager({ type: "stuck", pid }),
    broken: (pid) => tellManager({ type: "broken", pid }),
    log,
  });
  const workers = createServer((socket) => reactor.attach(socket));
  let listeners: readonly Listener[] = [];
  // The manager is gone, killed perhaps: nobody else is left to clean up, or to end a worker that is stuck.
  process.on("disconnect", () => {
    log("the manager has gone: the server ends");
    reactor.killWorkers();
    remove(config.remains, log);
    process.exit(1);
  });

  process.on("message", (message: ToReactor) => {
    switch (message.type) {
      case "stats":
        tellManager({ type: "stats", call: message.call, stats: statsOf(reactor, vitals, message.detailed) });
        return;
      case "employ":
        reactor.employ(message.used, message.retired);
        return;
      case "unserved":
        reactor.leaveUnserved();
        return;
      case "certificate":
        void setCertificates(message.tls);
        return;
      case "shutdown":
        void shutDown(message.timeout);
        return;
    }
  });
  checkRegularly(
    config.limits.requestTimeout,
    (now) => reactor.expire(now),
    (milliseconds, now) => reactor.stoodStill(milliseconds, now),
  );
  if (config.isElastic) {
    setInterval(() => {
      if (reactor.queued > 0) tellManager({ type: "waiting", wait: reactor.expectedWait });
    }, REPORT_INTERVAL);
  }

  async function listen(): Promise<void> {
    // Loaded where it is used: it brings a table of a thousand types.
    const files = config.static.length === 0 ? null : await import("../files/static.ts");
    const serveFiles = () => {
      reactor.files = new FileAnswers(files && new files.StaticFiles(config.static));
    };
    if (config.identity === null) serveFiles();
    listeners = await openListeners(config.listen, reactor).catch((error: Error) => {
      throw new Error(reasonOf(error, config.listen), { cause: error });
    });
    reactor.connections.find = (id) => connectionOf(listeners, id);
    if (config.identity !== null) {
      const { checkCode, checkFolders } = await import("../manager/folders.ts");
      dropPrivileges(config.identity);
      if (config.folders !== null) {
        await checkCode(config.code);
        await checkFolders(config.folders);
      }
      // Not before: no file is read that only root may read.
      serveFiles();
    }
    // Whose socket it is, others of the same user may open.
    await new Promise<void>((resolve, reject) => {
      workers.once("error", ({ message }) =>
        reject(new Error(`the unix socket ${config.socketPath} cannot be opened: ${message}`)),
      );
      workers.listen(config.socketPath, resolve);
    });
    const { port } = listeners[0] as Listener;
    tellManager({ type: "ready", port, protocols: listeners.flatMap((listener) => listener.protocols) });
  }

  async function setCertificates(tls: Certificates): Promise<void> {
    const failures: string[] = [];
    for (const listener of listeners) {
      try {
        await listener.setCertificates(tls);
      } catch (error) {
        failures.push(`${listener.protocols.join(", ")}: ${(error as Error).message}`);
      }
    }
    tellManager({ type: "certificate", failure: failures.join("; ") || null });
  }

  async function shutDown(timeout: number): Promise<void> {
    const drained = Promise.all([...listeners.map((listener) => listener.drain(false)), reactor.drain()]);
    const deadline = new Promise<void>((resolve) => {
      setTimeout(resolve, timeout);
    });
    await Promise.race([drained, deadline]);
    reactor.giveUp();
    await Promise.all(listeners.map((listener) => listener.close()));
    // Workers are told of the end of the connections, too.
    reactor.close();
    workers.close();
    remove(config.socketPath, log);
    process.exit(0);
  }

  listen().catch((error: Error) => {
    tellManager({ type: "failed", reason: error.message }, () => process.exit(1));
  });
}

function statsOf(reactor: Reactor, vitals: OwnVitals, detailed: boolean): ReactorCounts {
  const { registry } = reactor;
  return {
    ...vitals.read(),
    inFlight: registry.size,
    queued: reactor.queued,
    droppedFrames: reactor.droppedFrames,
    protocols: registry.counts(),
    exchanges: detailed ? registry.snapshot(now()) : [],
  };
}

// The manager hears the signals and says what to do; a terminal's Ctrl-C, or `systemctl kill`, reaches every process.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
process.on("SIGHUP", () => {});
process.on("SIGUSR1", () => {});
process.on("SIGUSR2", () => {});
// What the runtime warns of goes to the log, but that an engine is experimental: whoever chose it knows.
process.removeAllListeners("warning");
process.on("warning", ({ name, message }) => {
  if (name !== "ExperimentalWarning") logTo("reactor")(`warning: ${message}`);
});
// What an engine throws that nobody expected, or a `dispatch` function rejects with, must not take every connection with it.
logUncaught(logTo("reactor"));
process.once("message", (message: ToReactor) => {
  if (message.type === "start") start(message.config);
});
