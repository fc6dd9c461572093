// The services of the current range, shared by the picker in the top bar and the pages.
import { signal } from "@preact/signals";
import type { Service } from "./types";

/** Null until the first answer. */
export const services = signal<Service[] | null>(null);

/** How many services the server has left out, because there are very many. */
export const leftOut = signal(0);

/** How many alerts fire now; null until known. */
export const firing = signal<number | null>(null);
