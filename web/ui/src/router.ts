// The current address as a signal, and the only two ways to change it.
import { computed, signal } from "@preact/signals";
import { decode, encode, type UrlState } from "./url";

const base = new URL(document.baseURI);

function read(): UrlState {
  const path = location.pathname.startsWith(base.pathname) ? location.pathname.slice(base.pathname.length) : location.pathname;
  return decode(path, location.search);
}

const current = signal<UrlState>(read());

export const url = computed(() => current.value);

addEventListener("popstate", () => {
  current.value = read();
});

/** An absolute address for a state, to put in an `href`. */
export function hrefOf(state: UrlState): string {
  return new URL(encode(state), base).href;
}

/**
 * Goes to a state. `push` is for what the back button should undo (a page, a zoom, another release); `replace` is for
 * what it should not (typing in a search box, a sort order).
 */
export function go(state: UrlState, how: "push" | "replace" = "push"): void {
  const href = hrefOf(state);
  const isNewPage = state.page !== current.value.page;
  if (href !== location.href) {
    if (how === "push") history.pushState(null, "", href);
    else history.replaceState(null, "", href);
  }
  current.value = state;
  if (isNewPage) scrollTo(0, 0);
}

/** Changes some fields of the current address. */
export function patch(change: Partial<UrlState>, how: "push" | "replace" = "push"): void {
  go({ ...current.value, ...change }, how);
}

/** The service last looked at, so that Compare and Service remember it while other pages are open. */
export const lastService = signal<{ service: string; namespace: string | null } | null>(null);

current.subscribe((state) => {
  if (state.service !== null) lastService.value = { service: state.service, namespace: state.namespace };
});
