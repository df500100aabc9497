/** What each level of each coding costs and saves: `npx bun bench/compression.ts`. The levels of src/options.ts follow from it. */
import type { Coding } from "../src/options.ts";
import { Encoder, encode } from "../src/worker/encoder.ts";
import { htmlOf, jsonOf } from "./content.ts";

const BYTES = 65_536;
const STREAM_BYTES = 1_048_576;
const WRITE_BYTES = 4096;
const EVENT = Buffer.from('event: tick\ndata: {"time":1700000000,"text":"the server says"}\n\n');
/** Milliseconds. */
const EACH = 300;
const CONTEXTS = 100;

const LEVELS: Readonly<Record<Coding, readonly number[]>> = {
  zstd: [1, 2, 3, 4, 5, 6, 9],
  br: [0, 1, 2, 3, 4, 5, 6],
  gzip: [1, 2, 3, 4, 5, 6, 9],
};

/** Milliseconds of one call: the fastest, which a busy machine has disturbed least. */
function timeOf(call: () => unknown): number {
  for (let i = 0; i < 3; i++) call();
  let fastest = Number.POSITIVE_INFINITY;
  for (const end = performance.now() + EACH; performance.now() < end; ) {
    const began = performance.now();
    call();
    fastest = Math.min(fastest, performance.now() - began);
  }
  return fastest;
}

const figures = (bytes: number, coded: number, ms: number) =>
  `${((coded / bytes) * 100).toFixed(1)} % · ${(bytes / ms / 1000).toFixed(0)} MB/s`;

function stream(coding: Coding, levels: Record<Coding, number>, content: Uint8Array): number {
  const encoder = new Encoder(coding, levels);
  let length = 0;
  for (let at = 0; at < content.length; at += WRITE_BYTES) {
    length += encoder.encode(content.subarray(at, at + WRITE_BYTES), "flush").length;
  }
  length += encoder.encode(Buffer.alloc(0), "finish").length;
  encoder.close();
  return length;
}

/** KiB that a stream holds which has sent a few events. */
function contextOf(coding: Coding, levels: Record<Coding, number>): number {
  const before = process.memoryUsage.rss();
  const encoders = Array.from({ length: CONTEXTS }, () => {
    const encoder = new Encoder(coding, levels);
    for (let i = 0; i < 20; i++) encoder.encode(EVENT, "flush");
    return encoder;
  });
  const held = process.memoryUsage.rss() - before;
  for (const encoder of encoders) encoder.close();
  return held / CONTEXTS / 1024;
}

const json = Buffer.from(jsonOf(BYTES));
const html = Buffer.from(htmlOf(BYTES));
const long = Buffer.from(jsonOf(STREAM_BYTES));

const [only] = process.argv.slice(2);
if (only !== undefined) {
  // A process of its own for each, for what one has given back another takes.
  const [coding, level] = only.split(":") as [Coding, string];
  console.log(contextOf(coding, { zstd: 0, br: 0, gzip: 0, [coding]: Number(level) }).toFixed(0));
} else {
  console.log(
    `| | JSON, ${json.length} bytes | HTML, ${html.length} bytes | stream, ${WRITE_BYTES} bytes a write | a stream holds |`,
  );
  console.log("|---|---|---|---|---|");
  for (const coding of ["zstd", "br", "gzip"] as const) {
    for (const level of LEVELS[coding]) {
      const levels = { zstd: 0, br: 0, gzip: 0, [coding]: level };
      const cells = [json, html].map((content) =>
        figures(
          content.length,
          encode(coding, levels, content).length,
          timeOf(() => encode(coding, levels, content)),
        ),
      );
      const streamed = stream(coding, levels, long);
      cells.push(
        figures(
          long.length,
          streamed,
          timeOf(() => stream(coding, levels, long)),
        ),
      );
      const own = Bun.spawnSync([process.execPath, import.meta.path, `${coding}:${level}`]);
      cells.push(`${own.stdout.toString().trim()} KiB`);
      console.log(`| ${coding} ${level} | ${cells.join(" | ")} |`);
    }
  }
}
