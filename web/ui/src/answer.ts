// A question asked by a component: asked again on every tick, cancelled when another takes its place, and the last good
// answer kept on screen until the next one arrives.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, addressOf, ask, type Question } from "./api";
import { tick } from "./live";

export interface Answer<T> {
  data: T | null;
  error: ApiError | null;
  /** True until the first answer or error. */
  isLoading: boolean;
  /** True while `data` answers an older question. */
  isStale: boolean;
  retry(): void;
}

interface Held<T> {
  address: string | null;
  data: T | null;
  error: ApiError | null;
}

/** `null` asks nothing. `once` ignores the refresh clock. */
export function useAnswer<T>(asked: Question<T> | null, once = false): Answer<T> {
  const address = asked === null ? null : addressOf(asked);
  const [held, setHeld] = useState<Held<T>>({ address: null, data: null, error: null });
  const [attempt, setAttempt] = useState(0);
  const beat = once ? 0 : tick.value;

  const pending = useRef<{ address: string; abort: AbortController } | null>(null);

  useEffect(() => {
    // An answer slower than the clock is waited for; asking again would cancel it for ever.
    if (pending.current !== null && pending.current.address === address) return;
    pending.current?.abort.abort();
    pending.current = null;
    if (asked === null || address === null) return;
    const own = { address, abort: new AbortController() };
    pending.current = own;
    const settle = (next: (before: Held<T>) => Held<T>) => {
      if (pending.current !== own) return;
      pending.current = null;
      setHeld(next);
    };
    ask(asked, own.abort.signal).then(
      (data) => settle(() => ({ address, data, error: null })),
      (cause: unknown) => {
        const error = cause instanceof ApiError ? cause : new ApiError(address, 0, "broken", String(cause), true);
        // A refresh that fails keeps the answer it could not replace; another question does not.
        settle((before) => ({ address, data: before.address === address && error.retry ? before.data : null, error }));
      },
    );
  }, [address, beat, attempt]);
  useEffect(
    () => () => {
      pending.current?.abort.abort();
      pending.current = null;
    },
    [],
  );

  const retry = useCallback(() => setAttempt((count) => count + 1), []);
  return {
    data: address === null ? null : held.data,
    error: held.address === address ? held.error : null,
    isLoading: address !== null && held.data === null && (held.error === null || held.address !== address),
    isStale: held.data !== null && held.address !== address,
    retry,
  };
}
