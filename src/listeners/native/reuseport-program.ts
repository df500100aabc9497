/**
 * Writes the program by which the kernel chooses, among the sockets that share a UDP port, the one that gets a packet. It
 * knows a connection by its id, or a client by its port, and of QUIC what no version may change (RFC 8999). No sockets,
 * no clock.
 *
 * The language is the classic BPF: an accumulator, an index register, jumps forward only, and 4096 instructions. So what
 * is known stands in the program itself, at the leaves of two binary trees: ids 16 to a leaf, and ports 32 to a constant.
 *
 *     an ask ──► the place that it names
 *     begins a connection ──► fresh
 *     the connection id ──► tree ──► the place of its engine
 *     the port ──► tree ──► caught, or its place
 *     unknown ──► caught, or fresh
 *
 * Where there is no room for ids, the ports alone decide, and before everything else.
 */
import { ASK_PLACE_MASK, ASK_PLACE_OFFSET, ASK_VERSION } from "./connection-ids.ts";

/** A socket's index among those that share the port, in the order that the kernel keeps; up to ASK_PLACE_MASK. */
export type Place = number;
/** In `Steering.ports`: the port goes to the catcher, unless it begins a connection. */
export const CAUGHT = 254;
/** In `Steering.ports`: nothing is known. */
export const UNKNOWN = 255;

/** Who gets what. */
export interface Steering {
  /** Of connections: the first four bytes of the id, and the engine's place. Null where the ports decide. */
  readonly ids: ReadonlyMap<number, Place> | null;
  /** For each port a place, CAUGHT or UNKNOWN. */
  readonly ports: Uint8Array;
  /** The engine for new connections. */
  readonly fresh: Place;
  readonly catcher: Place;
  /** Whether what is unknown is caught; else it is fresh. */
  readonly catching: boolean;
}

const PORTS = 65_536;
const WORD_BITS = 32;
const IDS_OF_LEAF = 16;
const MAX_INSTRUCTIONS = 4096;
const INSTRUCTION_BYTES = 8;
/** The farthest that a conditional jump reaches. */
const MAX_JUMP = 255;

const LD_IMM = 0x00;
const LD_WORD = 0x20;
const LD_HALF = 0x28;
const LD_BYTE = 0x30;
const LD_HALF_AT_X = 0x48;
const LD_MEMORY = 0x60;
const LDX_IPV4_HEADER_LENGTH = 0xb1;
const ST_MEMORY = 0x02;
const TAX = 0x07;
const AND = 0x54;
const RSH = 0x74;
const RSH_X = 0x7c;
const JA = 0x05;
const JEQ = 0x15;
const JGE = 0x35;
const JSET = 0x45;
const RET = 0x06;
const RET_A = 0x16;

/** SKF_NET_OFF: offsets from here on count from the IP header, others from the UDP payload. */
const NETWORK = 0xfff0_0000;
const IPV6_HEADER_BYTES = 40;
const VERSION_OFFSET = 1;
const LONG_HEADER = 0x80;
const LONG_ID_OFFSET = 6;
const SHORT_ID_OFFSET = 1;
/** A long header, and of its types one that a client begins with: RFC 9000 §17.2, RFC 9369 §3.2. */
const INITIAL_MASK = 0xa0;
const INITIAL = 0x80;

type Label = "id" | "port" | "unknown" | "caught" | "fresh" | `place ${Place}`;

interface Instruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
  /** Where a jump goes, in place of `k`. */
  readonly to?: Label;
}

/**
 * The instructions, each a `struct sock_filter`; null where they would be too many.
 * @param portsTogether a power of two: so many neighbouring ports are taken for one
 */
export function reuseportProgram(steering: Steering, portsTogether = 1): Uint8Array | null {
  const program: Instruction[] = [];
  const labels = new Map<Label, number>();
  const put = (label: Label, instructions: readonly Instruction[]) => {
    labels.set(label, program.length);
    for (const instruction of instructions) program.push(instruction);
  };
  // What is shorter than this reads gets place 0; it is no QUIC.
  program.push(
    step(LD_WORD, VERSION_OFFSET),
    branch(JEQ, ASK_VERSION, 0, 3),
    step(LD_BYTE, ASK_PLACE_OFFSET),
    step(AND, ASK_PLACE_MASK),
    step(RET_A),
  );
  if (steering.ids !== null) put("id", chooseById(steering.ids));
  const leaves = portLeaves(steering.ports, portsTogether);
  put("port", chooseByPort(leaves, portsTogether));
  for (const place of new Set(leaves.flatMap(({ words }) => words.map((word) => word.place)))) {
    put(`place ${place}`, [...testBit(place), jump("unknown")]);
  }
  put("unknown", [jump(steering.catching ? "caught" : "fresh")]);
  put("caught", [...unlessInitial("fresh"), step(RET, steering.catcher)]);
  put("fresh", [step(RET, steering.fresh)]);
  return program.length > MAX_INSTRUCTIONS ? null : encode(program, labels);
}

function step(code: number, k = 0): Instruction {
  return { code, jt: 0, jf: 0, k };
}

function branch(code: number, k: number, jt: number, jf: number): Instruction {
  return { code, jt, jf, k };
}

function jump(to: Label): Instruction {
  return { code: JA, jt: 0, jf: 0, k: 0, to };
}

/** Goes there with what begins a connection. */
function unlessInitial(to: Label): Instruction[] {
  return [step(LD_BYTE, 0), step(AND, INITIAL_MASK), branch(JEQ, INITIAL, 0, 1), jump(to)];
}

function chooseById(ids: ReadonlyMap<number, Place>): Instruction[] {
  const leaves: Leaf[] = [];
  const sorted = [...ids].sort(([a], [b]) => a - b);
  for (let i = 0; i < sorted.length; i += IDS_OF_LEAF) {
    const own = sorted.slice(i, i + IDS_OF_LEAF);
    leaves.push({ from: (own[0] as [number, Place])[0], code: idLeaf(own) });
  }
  return [
    ...unlessInitial("fresh"),
    step(LD_BYTE, 0),
    branch(JSET, LONG_HEADER, 0, 2),
    step(LD_WORD, LONG_ID_OFFSET),
    step(JA, 1),
    step(LD_WORD, SHORT_ID_OFFSET),
    ...(leaves.length === 0 ? [] : tree(leaves)),
  ];
}

function idLeaf(ids: readonly (readonly [id: number, place: Place])[]): Instruction[] {
  const places = [...new Set(ids.map(([, place]) => place))];
  // Each id jumps over the other ids and the jump behind them, to the return of its place.
  const tests = ids.map(([id, place], i) => branch(JEQ, id, ids.length - i + places.indexOf(place), 0));
  return [...tests, jump("port"), ...places.map((place) => step(RET, place))];
}

function chooseByPort(leaves: readonly PortLeaf[], portsTogether: number): Instruction[] {
  const shift = Math.log2(portsTogether);
  return [
    ...LOAD_PORT,
    step(ST_MEMORY, 0),
    step(RSH, shift),
    step(AND, WORD_BITS - 1),
    step(TAX),
    step(LD_MEMORY, 0),
    step(RSH, shift + Math.log2(WORD_BITS)),
    ...tree(leaves),
  ];
}

/** The client's port into the accumulator, of IPv4 with its options, and of IPv6, which clients send without any. */
const LOAD_PORT: readonly Instruction[] = [
  step(LD_BYTE, NETWORK),
  step(AND, 0xf0),
  branch(JEQ, 0x40, 0, 3),
  step(LDX_IPV4_HEADER_LENGTH, NETWORK),
  step(LD_HALF_AT_X, NETWORK),
  step(JA, 1),
  step(LD_HALF, NETWORK + IPV6_HEADER_BYTES),
];

interface Leaf {
  /** The first key that comes here. */
  readonly from: number;
  /** Leaves by itself at its end. */
  readonly code: readonly Instruction[];
}

/** Compares the accumulator. */
function tree(leaves: readonly Leaf[]): readonly Instruction[] {
  if (leaves.length === 1) return (leaves[0] as Leaf).code;
  const middle = leaves.length >> 1;
  const right = leaves.slice(middle);
  const left = tree(leaves.slice(0, middle));
  const { from } = right[0] as Leaf;
  const choice =
    left.length <= MAX_JUMP
      ? [branch(JGE, from, left.length, 0)]
      : [branch(JGE, from, 0, 1), step(JA, left.length)];
  return [...choice, ...left, ...tree(right)];
}

/** Which of 32 neighbouring ports have a place. */
interface Word {
  readonly place: Place;
  bits: number;
}

/** 32 ports, or those without a place until the next leaf. */
interface PortLeaf extends Leaf {
  readonly words: readonly Word[];
}

function portLeaves(ports: Uint8Array, portsTogether: number): PortLeaf[] {
  const leaves: PortLeaf[] = [];
  const portsOfLeaf = WORD_BITS * portsTogether;
  for (let first = 0; first < PORTS; first += portsOfLeaf) {
    const words = wordsOf(ports, first, portsTogether);
    const isGap = words.length === 0 && leaves.at(-1)?.words.length === 0;
    if (!isGap) leaves.push({ from: first / portsOfLeaf, code: portLeaf(words), words });
  }
  return leaves;
}

function wordsOf(ports: Uint8Array, first: number, portsTogether: number): Word[] {
  const words: Word[] = [];
  for (let port = first; port < first + WORD_BITS * portsTogether; port++) {
    const place = ports[port] as Place;
    if (place === UNKNOWN) continue;
    let word = words.find((each) => each.place === place);
    if (word === undefined) {
      word = { place, bits: 0 };
      words.push(word);
    }
    word.bits |= 1 << ((port - first) / portsTogether);
  }
  return words;
}

function portLeaf(words: readonly Word[]): Instruction[] {
  const last = words.at(-1);
  if (last === undefined) return [jump("unknown")];
  return [
    ...words.slice(0, -1).flatMap(({ place, bits }) => [step(LD_IMM, bits), ...testBit(place)]),
    step(LD_IMM, last.bits),
    jump(`place ${last.place}`),
  ];
}

/** Goes to the place where the port's bit in the accumulator is set. */
function testBit(place: Place): Instruction[] {
  return [step(RSH_X), branch(JSET, 1, 0, 1), place === CAUGHT ? jump("caught") : step(RET, place)];
}

function encode(program: readonly Instruction[], labels: ReadonlyMap<Label, number>): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(program.length * INSTRUCTION_BYTES));
  program.forEach(({ code, jt, jf, k, to }, index) => {
    const at = index * INSTRUCTION_BYTES;
    bytes.setUint16(at, code, true);
    bytes.setUint8(at + 2, jt);
    bytes.setUint8(at + 3, jf);
    bytes.setUint32(at + 4, to === undefined ? k : (labels.get(to) as number) - index - 1, true);
  });
  return new Uint8Array(bytes.buffer);
}
