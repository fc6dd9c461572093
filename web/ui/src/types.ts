// The answers of /api/v1, and what the server cannot say of them. Times end in `_ms` (unix milliseconds), CPU in `_ns`; values
// without a unit in their name are in the `unit` of the answer. `null` always means "not reported" or "cannot be said", never zero.
export type * from "./api.generated";

/** What a tree node stands for, as numbered on the wire. */
export const NodeKind = { function: 0, cut: 1, unresolved: 2, root: 3, library: 4 } as const;
