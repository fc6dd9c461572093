// A link to a state of these pages: a real address for new tabs and copying, a quick change for a plain click.
import type { ComponentChildren } from "preact";
import { go, hrefOf } from "../router";
import type { UrlState } from "../url";

interface LinkProps {
  to: UrlState;
  children: ComponentChildren;
  class?: string;
  title?: string | undefined;
  /** Puts the link at a place inside a positioned parent, in pixels. */
  at?: { left: number; top: number };
  "aria-label"?: string;
  "aria-current"?: "page" | undefined;
}

export function Link({ to, children, at, ...rest }: LinkProps) {
  return (
    <a
      {...rest}
      href={hrefOf(to)}
      style={at === undefined ? undefined : { left: `${at.left}px`, top: `${at.top}px` }}
      onClick={(event) => {
        if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        go(to);
      }}
    >
      {children}
    </a>
  );
}
