/** What a check has found, whatever it looked at. */

export interface Finding {
  /** `warning`: it works, and could be better · `problem`: a server would not start, or would not be reached. */
  readonly level: "ok" | "warning" | "problem";
  /** What was looked at, in a few words. */
  readonly subject: string;
  /** What there is, in a line. */
  readonly text: string;
  /** What to do about it: a command where there is one. */
  readonly advice?: string;
}

export const ok = (subject: string, text: string): Finding => ({ level: "ok", subject, text });

export const warning = (subject: string, text: string, advice: string): Finding => ({
  level: "warning",
  subject,
  text,
  advice,
});

export const problem = (subject: string, text: string, advice: string): Finding => ({
  level: "problem",
  subject,
  text,
  advice,
});
