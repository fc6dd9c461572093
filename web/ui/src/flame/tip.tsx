// The numbers of the frame under the pointer.
import type { Signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { nanoseconds, PER_WORDS } from "../format";
import type { Per } from "../types";
import { tipNotes, tipRows } from "./describe";
import type { Hover } from "./graph";
import type { ChangeScale } from "./palette";
import { moduleOf, nameOf, type FlameTree } from "./tree";

interface TipProps {
  hover: Signal<Hover | null>;
  tree: FlameTree;
  scale: ChangeScale;
  per: Per;
  isDiff: boolean;
  /** True when library frames are folded, which changes what "self" means. */
  isFolded: boolean;
}

export function FlameTip({ hover, tree, scale, per, isDiff, isFolded }: TipProps) {
  const box = useRef<HTMLDivElement>(null);
  const at = hover.value;
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null || at === null) return;
    const { offsetWidth, offsetHeight } = element;
    const left = Math.min(at.clientX + 14, innerWidth - offsetWidth - 8);
    const below = at.clientY + 18;
    const top = below + offsetHeight > innerHeight - 8 ? at.clientY - offsetHeight - 12 : below;
    element.style.transform = `translate(${Math.max(8, left)}px, ${Math.max(8, top)}px)`;
  });
  if (at === null || at.node >= tree.size) return null;
  const rows = tipRows(tree, at.node);
  return (
    <div class="tip" ref={box} role="presentation">
      <div class="tip-name">{nameOf(tree, at.node)}</div>
      <div class="tip-module">{moduleOf(tree, at.node)}</div>
      {isDiff ? (
        <table>
          <thead>
            <tr>
              <th>CPU {PER_WORDS[per].short}</th>
              <th>baseline</th>
              <th>candidate</th>
              <th>change</th>
              <th>ratio</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.what}>
                <th>{row.what}</th>
                <td>{row.baseline}</td>
                <td>{row.candidate}</td>
                <td>{row.delta}</td>
                <td>{row.ratio}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <div>
          total {nanoseconds(tree.totalB[at.node]!)}, self {nanoseconds(tree.selfB[at.node]!)} CPU {PER_WORDS[per].short}
        </div>
      )}
      {isFolded && <div class="tip-note">Self includes the library code it calls</div>}
      {tipNotes(tree, at.node, scale, isDiff).map((note) => (
        <div class="tip-note" key={note}>
          {note}
        </div>
      ))}
    </div>
  );
}
