// Keys and meanings, in a dialog.
import { useEffect, useRef } from "preact/hooks";

const KEYS: readonly [string, string][] = [
  ["↑ ↓ ← →", "move between frames: caller, widest callee, siblings"],
  ["Enter", "zoom to the frame"],
  ["Space", "highlight the frame’s function in the table"],
  ["Esc", "zoom out to all frames"],
  ["/", "search frames; n and N step through the matches"],
  ["Home", "back to the root"],
  ["t", "call tree as a table"],
  ["?", "this help"],
];

const WORDS: readonly [string, string][] = [
  ["self and total", "A function’s own code; its own code and everything it calls."],
  ["per request", "CPU time of the samples divided by the requests served on the same route by the same instances (or release, if profiles and requests name instances differently), during the time covered by both."],
  ["significant", "The change is larger than chance explains; at most 5 % of the marked functions are false positives. Everything else is grey."],
  ["95 % interval", "Contains the true value in 95 of 100 such measurements."],
  ["not reported", "Not measured on that side. It is not zero."],
];

export function Help({ onClose }: { onClose(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="help" aria-label="Help" onClose={onClose}>
      <h2>Keys in a flame graph</h2>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <h2>Words</h2>
      <dl>
        {WORDS.map(([word, what]) => (
          <div key={word}>
            <dt>{word}</dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <button type="button" class="button" onClick={() => dialog.current?.close()}>
        Close
      </button>
    </dialog>
  );
}
