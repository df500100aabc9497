/** What can become of a task other than its result or its own error. */

/** A task cannot be handed over: the message says why in one line. */
export class TaskError extends Error {
  readonly code: string = "TERCET_TASK";
  override readonly name: string = "TaskError";
}

/** As many tasks wait as `tasks.maxQueue` allows: nothing was handed over. */
export class TaskQueueFullError extends TaskError {
  override readonly code = "TERCET_TASK_QUEUE_FULL";
  override readonly name = "TaskQueueFullError";
}

/** The task was not done within its `timeout`. */
export class TaskTimeoutError extends TaskError {
  override readonly code = "TERCET_TASK_TIMEOUT";
  override readonly name = "TaskTimeoutError";
}

/** The task worker that ran it has ended, and it was not to be run again. Whether it did its work is not known. */
export class TaskLostError extends TaskError {
  override readonly code = "TERCET_TASK_LOST";
  override readonly name = "TaskLostError";
}

const CLASSES = [TaskQueueFullError, TaskTimeoutError, TaskLostError, TaskError] as const;

/** An error of a task as it comes from another process, in its own class again. */
export function revived(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const Class = CLASSES.find(({ name }) => name === error.name);
  if (Class === undefined) return error;
  const own = new Class(error.message);
  Object.defineProperty(own, "stack", { value: error.stack, writable: true, configurable: true });
  return own;
}
