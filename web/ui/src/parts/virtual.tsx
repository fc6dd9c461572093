// A long table body that only holds the rows in view. Rows have one fixed height; spacers stand in for the rest.
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useState } from "preact/hooks";

export interface Slice {
  first: number;
  last: number;
}

/** Rows kept beyond either edge, so that keyboard steps and fast scrolling find them. */
const MARGIN = 12;

export function sliceInView(scrollTop: number, viewport: number, rowHeight: number, rows: number): Slice {
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - MARGIN);
  const last = Math.min(rows, Math.ceil((scrollTop + viewport) / rowHeight) + MARGIN);
  return { first: Math.min(first, last), last };
}

export function useSlice(scroller: RefObject<HTMLElement | null>, rowHeight: number, rows: number): Slice {
  const [slice, setSlice] = useState<Slice>({ first: 0, last: Math.min(rows, 60) });
  useEffect(() => {
    const box = scroller.current;
    if (box === null) return undefined;
    const update = () => setSlice(sliceInView(box.scrollTop, box.clientHeight, rowHeight, rows));
    update();
    box.addEventListener("scroll", update, { passive: true });
    const observer = new ResizeObserver(update);
    observer.observe(box);
    return () => {
      box.removeEventListener("scroll", update);
      observer.disconnect();
    };
  }, [rowHeight, rows]);
  return { first: Math.min(slice.first, rows), last: Math.min(slice.last, rows) };
}

interface SpacersProps {
  slice: Slice;
  rowHeight: number;
  rows: number;
  columns: number;
  children: ComponentChildren;
}

export function Spaced({ slice, rowHeight, rows, columns, children }: SpacersProps) {
  const gap = (height: number) =>
    height > 0 ? (
      <tr aria-hidden="true" class="spacer">
        <td colSpan={columns} style={{ height: `${height}px` }} />
      </tr>
    ) : null;
  return (
    <>
      {gap(slice.first * rowHeight)}
      {children}
      {gap((rows - slice.last) * rowHeight)}
    </>
  );
}
