/**
 * nginx and Caddy, each with HTTP/1.1, 2 and 3: as static responders, and in front of a node:http server. They may live in
 * a root folder of their own, or be wrapped in another command. So their configuration, with the certificate in it, is
 * a file that they have open as their standard input, and nothing else of this file system is asked for.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { GREETING, IDLE_SECONDS } from "./apps/answers.ts";
import { BenchError } from "./load.ts";
import type { Certificate } from "./servers.ts";
import { type Service, startService } from "./service.ts";

/** Connections to the server behind that are kept: as many as there are requests in flight at most. */
const KEPT = 1024;

export type ProxyKind = "nginx" | "caddy";

const KINDS: Readonly<
  Record<ProxyKind, { arguments: readonly string[]; configure: typeof nginxConfiguration }>
> = {
  nginx: { arguments: ["-e", "stderr", "-c", "/dev/stdin"], configure: nginxConfiguration },
  caddy: { arguments: ["run", "--config", "-"], configure: caddyConfiguration },
};

/** @param upstream the port of the server behind it; null: it answers by itself */
export async function startProxy(
  kind: ProxyKind,
  program: readonly string[],
  certificate: Certificate,
  upstream: number | null,
  folder: string,
): Promise<Service & { readonly port: number }> {
  const port = await freePort();
  const pair = {
    certificate: await readFile(certificate.cert, "utf8"),
    key: await readFile(certificate.key, "utf8"),
  };
  const input = join(folder, `${kind}-${port}`);
  await writeFile(input, KINDS[kind].configure(port, upstream, pair), { mode: 0o600 });
  const service = startService(kind, [...program, ...KINDS[kind].arguments], { input });
  return { ...service, port };
}

/** Free for TCP and UDP alike. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const tcp = createServer().listen(0, "127.0.0.1");
    await once(tcp, "listening");
    const { port } = tcp.address() as AddressInfo;
    const udp = createSocket("udp4");
    try {
      udp.bind(port, "127.0.0.1");
      await once(udp, "listening");
      return port;
    } catch (error) {
      // Another's; the next one may be free.
      if ((error as { code?: string }).code !== "EADDRINUSE") throw error;
    } finally {
      udp.close();
      tcp.close();
      await once(tcp, "close");
    }
  }
  throw new BenchError("found no port that is free for TCP and UDP");
}

interface Pair {
  readonly certificate: string;
  readonly key: string;
}

/** One worker, as every server here has. `map` holds the certificate, since nginx takes no PEM text but from a variable. */
function nginxConfiguration(port: number, upstream: number | null, { certificate, key }: Pair): string {
  const answer =
    upstream === null
      ? `return 200 "${GREETING.replace("\n", "\\n")}";`
      : `proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";`;
  const behind = `upstream app { server 127.0.0.1:${upstream}; keepalive ${KEPT}; keepalive_requests 1000000000; }`;
  return `
daemon off;
worker_processes 1;
pid /tmp/tercet-bench-nginx-${port}.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  default_type text/plain;
  keepalive_requests 1000000000;
  keepalive_timeout ${IDLE_SECONDS}s;
  map "" $certificate { default "${certificate}"; }
  map "" $key { default "${key}"; }
  ${upstream === null ? "" : behind}
  server {
    listen 127.0.0.1:${port} quic;
    listen 127.0.0.1:${port} ssl;
    http2 on;
    ssl_certificate data:$certificate;
    ssl_certificate_key data:$key;
    location / { ${answer} }
  }
}
`;
}

/** What is not `/json` passes no `encode`, as it passes no compression elsewhere. */
function caddyConfiguration(port: number, upstream: number | null, pair: Pair): string {
  const respond = {
    handler: "static_response",
    headers: { "Content-Type": ["text/plain"] },
    body: GREETING,
  };
  const proxy = {
    handler: "reverse_proxy",
    upstreams: [{ dial: `127.0.0.1:${upstream}` }],
    transport: { protocol: "http", keep_alive: { max_idle_conns_per_host: KEPT } },
  };
  const encode = { handler: "encode", encodings: { zstd: {}, gzip: {} }, prefer: ["zstd", "gzip"] };
  const routes =
    upstream === null
      ? [{ handle: [respond] }]
      : [{ match: [{ path: ["/json"] }], handle: [encode, proxy], terminal: true }, { handle: [proxy] }];
  const server = {
    listen: [`127.0.0.1:${port}`],
    automatic_https: { disable: true },
    tls_connection_policies: [{}],
    routes,
  };
  return JSON.stringify({
    admin: { disabled: true },
    logging: { logs: { default: { level: "ERROR" } } },
    apps: {
      http: { grace_period: "1s", servers: { bench: server } },
      tls: { certificates: { load_pem: [pair] } },
    },
  });
}
