// A sentence of the server. Names of code stand between backticks in it; here they are set as code.
import { codePieces } from "../format";

export function Sentence({ text }: { text: string }) {
  return <>{codePieces(text).map((piece, at) => (at % 2 === 1 ? <Code key={at} name={piece} /> : piece))}</>;
}

/** A path of code; where it is too long for its line, it breaks after `::` first. */
function Code({ name }: { name: string }) {
  return <code>{name.split("::").flatMap((segment, at) => (at === 0 ? [segment] : ["::", <wbr key={at} />, segment]))}</code>;
}
