// A button that copies text and says so.
import { useEffect, useState } from "preact/hooks";

export function CopyButton({ text, label }: { text: string | (() => string); label: string }) {
  const [said, setSaid] = useState<string | null>(null);
  useEffect(() => {
    if (said === null) return undefined;
    const timer = setTimeout(() => setSaid(null), 1600);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = () => {
    const value = typeof text === "string" ? text : text();
    // Without HTTPS the clipboard is closed to pages; then the text is offered for copying by hand.
    if (navigator.clipboard === undefined) {
      prompt("Copy this:", value);
      return;
    }
    navigator.clipboard.writeText(value).then(
      () => setSaid("Copied"),
      () => setSaid("Not allowed"),
    );
  };
  return (
    <button type="button" class="quiet" onClick={copy}>
      <span aria-live="polite">{said ?? label}</span>
    </button>
  );
}
