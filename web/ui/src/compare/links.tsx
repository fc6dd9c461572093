// The same comparison elsewhere: exports, a link that stays as it is, the call for a terminal.
import { addressOf, curlOf, type Question } from "../api";
import { CopyButton } from "../parts/copy";
import { hrefOf, url } from "../router";
import { pinned } from "../url";

const FORMATS = [
  ["pprof", "pprof"],
  ["folded", "folded"],
  ["svg", "SVG"],
  ["json", "JSON"],
] as const;

export function ShareLinks({ asked }: { asked: Question<unknown> }) {
  const curl = curlOf(asked);
  return (
    <section class="panel share" aria-label="Exports and links">
      <div class="share-row">
        <span class="soft">Export</span>
        {FORMATS.map(([format, name]) => (
          <a key={format} href={addressOf(asked, format)} download={format === "pprof" || format === "folded"}>
            {name}
          </a>
        ))}
        <CopyButton label="Copy link" text={() => hrefOf(pinned(url.peek(), Date.now()))} />
      </div>
      <div class="share-row share-curl">
        <code tabIndex={0} aria-label="The same query for a terminal" role="region">
          {curl}
        </code>
        <CopyButton label="Copy" text={curl} />
      </div>
    </section>
  );
}
