/**
 * What a reactor and a worker say to each other of connections. Rare, and so in JSON: nothing of it is sent where nobody
 * listens or asks.
 */
import {
  CONNECTION_EVENTS,
  type ConnectionEvent,
  type ConnectionEventName,
  type ConnectionInfo,
} from "../connection.ts";
import type { ExchangeId } from "../exchange.ts";
import { FrameError, FrameType, type FrameWriter, type Payload } from "./frames.ts";

/** Of a frame that is about no exchange. */
const NONE = 0 as ExchangeId;

/** Which events are wanted, as bits in the order of CONNECTION_EVENTS. */
export function maskOf(events: Iterable<ConnectionEventName>): number {
  let mask = 0;
  for (const event of events) mask |= 1 << CONNECTION_EVENTS.indexOf(event);
  return mask;
}

export function writeWatch(writer: FrameWriter, mask: number): void {
  writer.begin(FrameType.watch, 0, NONE);
  writer.u8(mask);
  writer.finish();
}

export function writeEvent(writer: FrameWriter, event: ConnectionEvent): void {
  writer.begin(FrameType.event, 0, NONE);
  writer.raw(Buffer.from(JSON.stringify(event)));
  writer.finish();
}

export function readEvent(payload: Payload): ConnectionEvent {
  return parse(payload) as ConnectionEvent;
}

/** Asks how a connection is. @param call by which the answer is known */
export function writeQuestion(writer: FrameWriter, call: number, connectionId: string): void {
  writer.begin(FrameType.connection, 0, call as ExchangeId);
  writer.raw(Buffer.from(JSON.stringify(connectionId)));
  writer.finish();
}

export function readQuestion(payload: Payload): string {
  const id = parse(payload);
  if (typeof id !== "string") throw new FrameError("what is asked of a connection is not its id");
  return id;
}

/** @param info null where there is no such connection */
export function writeAnswer(writer: FrameWriter, call: number, info: ConnectionInfo | null): void {
  writer.begin(FrameType.connection, 0, call as ExchangeId);
  writer.raw(Buffer.from(JSON.stringify(info)));
  writer.finish();
}

export function readAnswer(payload: Payload): ConnectionInfo | null {
  return parse(payload) as ConnectionInfo | null;
}

function parse(payload: Payload): unknown {
  try {
    return JSON.parse(payload.rest().toString("utf8"));
  } catch (error) {
    throw new FrameError(`what is said of a connection is no JSON: ${(error as Error).message}`);
  }
}
