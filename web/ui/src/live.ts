// The refresh clock: one tick every 5 s, only while the range moves, the tab is visible, and nobody holds it.
// A hold stops frames from moving under the pointer while somebody reads a flame graph.
import { effect, signal } from "@preact/signals";
import { url } from "./router";
import { isMoving } from "./url";

export const REFRESH_MS = 5000;

/** Counts up with every refresh; questions are asked again when it changes. */
export const tick = signal(0);

const holds = new Set<symbol>();
let due = false;

function mayRefresh(): boolean {
  return !document.hidden && holds.size === 0;
}

function refresh(): void {
  due = true;
  if (!mayRefresh()) return;
  due = false;
  tick.value += 1;
}

/** Stops refreshes until the returned function is called. */
export function hold(): () => void {
  const token = Symbol("hold");
  holds.add(token);
  return () => {
    holds.delete(token);
    if (due && mayRefresh()) refresh();
  };
}

export function startClock(): void {
  document.addEventListener("visibilitychange", () => {
    if (due && mayRefresh()) refresh();
  });
  effect(() => {
    if (!url.value.live || !isMoving(url.value)) {
      due = false;
      return undefined;
    }
    const timer = setInterval(refresh, REFRESH_MS);
    return () => clearInterval(timer);
  });
}
