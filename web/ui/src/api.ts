// Questions to the server. A question is a plain value (path and parameters), so the page that asks it can also show
// it as a link, an export or a curl call; only `ask` touches the network.
import type { Alerts, Diff, ErrorDetail, ProfileAnswer, Questions, ServicePage, Services, Status, Topology } from "./types";
import type { UrlState } from "./url";

export interface Question<T> {
  path: string;
  params: [string, string][];
  /** Carries the type of the answer; never set. */
  answer?: T;
}

/** An answer that is not 2xx, or no answer at all. */
export class ApiError extends Error {
  readonly code: string;
  readonly status: number;
  /** Whether asking again can help. */
  readonly retry: boolean;
  readonly address: string;

  constructor(address: string, status: number, code: string, message: string, retry: boolean) {
    super(message);
    this.name = "ApiError";
    this.address = address;
    this.status = status;
    this.code = code;
    this.retry = retry;
  }
}

/** A question that the server knows, with parameters that it accepts. */
function question<P extends keyof Questions>(path: P, params: Partial<Record<Questions[P]["parameter"], string | null>>): Question<Questions[P]["answer"]> {
  return { path, params: Object.entries(params).filter((pair): pair is [string, string] => pair[1] !== null && pair[1] !== "") };
}

type Range = Pick<UrlState, "from" | "to">;

export function askServices(range: Range): Question<Services> {
  return question("api/v1/services", { from: range.from, to: range.to });
}

export function askService(state: Range & Pick<UrlState, "service" | "namespace">): Question<ServicePage> {
  return question("api/v1/service", { service: state.service, namespace: state.namespace, from: state.from, to: state.to });
}

export function askDiff(state: UrlState): Question<Diff> {
  // A side with its own range replaces the shared one; the server refuses half of each.
  const own = state.baselineFrom !== null || state.candidateFrom !== null;
  return question("api/v1/diff", {
    service: state.service,
    namespace: state.namespace,
    baseline: state.baseline,
    candidate: state.candidate,
    route: state.route,
    component: state.component,
    side: state.side,
    per: state.per,
    from: own ? null : state.from,
    to: own ? null : state.to,
    baseline_from: own ? (state.baselineFrom ?? state.from) : null,
    baseline_to: own ? (state.baselineTo ?? state.to) : null,
    candidate_from: own ? (state.candidateFrom ?? state.from) : null,
    candidate_to: own ? (state.candidateTo ?? state.to) : null,
  });
}

export function askProfile(state: UrlState, version: string): Question<ProfileAnswer> {
  return question("api/v1/profile", {
    service: state.service,
    namespace: state.namespace,
    version,
    route: state.route,
    component: state.component,
    side: state.side,
    from: state.from,
    to: state.to,
  });
}

export function askTopology(range: Range): Question<Topology> {
  return question("api/v1/topology", { from: range.from, to: range.to });
}

export function askAlerts(state: "all" | "firing"): Question<Alerts> {
  return question("api/v1/alerts", { state });
}

export function askStatus(): Question<Status> {
  return question("api/v1/status", {});
}

/** The absolute address of a question, optionally in another format. */
export function addressOf(asked: Question<unknown>, format?: string): string {
  const target = new URL(asked.path, document.baseURI);
  for (const [key, value] of asked.params) target.searchParams.append(key, value);
  if (format !== undefined) target.searchParams.set("format", format);
  return target.href;
}

/** The same question as a line for a terminal. */
export function curlOf(asked: Question<unknown>): string {
  return `curl -s '${addressOf(asked).replaceAll("'", "%27")}'`;
}

/** Asks the server. Rejects with ApiError, or with AbortError when `signal` was aborted. */
export async function ask<T>(asked: Question<T>, signal?: AbortSignal): Promise<T> {
  const address = addressOf(asked);
  let response: Response;
  try {
    response = await fetch(address, { headers: { accept: "application/json" }, ...(signal ? { signal } : {}) });
  } catch (cause) {
    if (signal?.aborted === true) throw cause;
    throw new ApiError(address, 0, "unreachable", "The server did not respond. It may be restarting, or the network may be down.", true);
  }
  const body: unknown = await response.json().catch(() => null);
  if (signal?.aborted === true) throw new DOMException("superseded", "AbortError");
  if (response.ok && body !== null) return body as T;
  const told = errorIn(body);
  throw new ApiError(
    address,
    response.status,
    told?.code ?? "unreadable",
    told?.message ?? `The server responded with ${response.status}, but not with JSON.`,
    told?.retry ?? response.status >= 500,
  );
}

function errorIn(body: unknown): ErrorDetail | null {
  if (typeof body !== "object" || body === null || !("error" in body)) return null;
  const error = body.error;
  if (typeof error !== "object" || error === null) return null;
  const { code, message, retry } = error as Record<string, unknown>;
  return { code: String(code ?? "unknown"), message: String(message ?? "The server gave no reason."), retry: retry === true };
}
