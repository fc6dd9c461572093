"""Pairs the names of the two builds by what the programs say of their functions, not by rules of normalising."""
import json, os, re, sys

WORK = sys.argv[1]
ENOUGH = 220  # rows of a language


def lines(build, name):
    with open(f"{WORK}/build-{build}/{name}.names", encoding="utf-8", errors="surrogateescape") as f:
        return sorted(set(line.rstrip("\n") for line in f))


def found(pattern, name):
    match = re.search(pattern, name)
    return "_".join(match.groups()) if match else None


def c(name):
    return found(r"^(constant|scalar|cold|part|target|plain)_(\d{3})\b", name)


def cxx(name):
    label = found(r"(text|generic|Cart|hidden|closure|throws)_(\d{3})", name)
    if label is None:
        return None
    if label.startswith("generic"):
        return label + " of " + (found(r"<(int|double|long)>", name) or {"i": "int", "d": "double", "l": "long"}[found(r"I([idl])E", name)])
    if label.startswith("closure") and ("{lambda" in name or "UliE" in name):
        return label + " lambda"
    if label.startswith("Cart"):
        return label + (" total" if "total" in name else " destructor")
    return label


def rust(name):
    label = found(r"(plain|generic|closure|hidden|shows)_(\d{3})", name) or found(r"(Cart)(\d{3})", name)
    if label is None or "call_once" in name:
        return None
    if label.startswith("generic") and name.startswith("_R"):
        return label + " of " + found(r"generic_\d{3}(\w)E", name)
    if label.startswith("closure") and ("closure$u7d" in name or name.startswith("_RNC")):
        return label + " closure"
    if label.startswith("Cart"):
        return label + (" total" if "total" in name else " price")
    return label


def go(name):
    label = found(r"\b(plain|generic|cart|list|handler|deferred|Total)(\d{3})", name)
    if label is None or "type.." in name:
        return None
    closures = name.split("func", 1)[1].count(".") + 1 if ".func" in name else 0
    return label + " closure" * closures


def java(name):
    if "$$Lambda" in name:
        return "a lambda's class, " + name.rsplit(".", 1)[1]
    if re.search(r"Main\$\d+\.", name):
        return "an anonymous class, " + name.rsplit(".", 1)[1]
    if "$Proxy" in name:
        return "a proxy's class, " + name.rsplit(".", 1)[1]
    if "Accessor" in name or name.startswith(("java/", "jdk/", "sun/")):
        return re.sub(r"\d+(?=\.)|[/.+]0x[0-9a-f]+", "", name)
    if "added" in name or "Main.part" in name:
        return None
    return re.sub(r"\$\d+$", "", name)


def js(name):
    if name.startswith("(anonymous:") or re.match("JS:[~*^+]* /", name):
        return "anonymous"
    return found(r"\b(plain|arrow|total|size|method)(\d{3})\b", name) or ("run" if re.search(r"\brun\b", name) else None)


def script(name):
    if re.search(r"\bshow\b|added|main|<|^each$|^map$", name.split(" (")[0]):
        return None
    name = re.sub(r"\(\d+ levels\) ", "", name)
    return re.sub(r" \(.*", "", re.sub("@anonymous.*?(->|::)", "@anonymous->", name))


def profile(build):
    with open(f"{WORK}/build-{build}/js/profile.json") as f:
        nodes = json.load(f)["nodes"]
    for frame in (node["callFrame"] for node in nodes):
        yield frame["functionName"] or f"(anonymous:L#{frame['lineNumber'] + 1}:C#{frame['columnNumber'] + 1})", frame["url"]


def perf_map(build):
    with open(f"{WORK}/build-{build}/js/perf.map") as f:
        for line in f:
            _, _, name = line.rstrip("\n").split(" ", 2)
            if name.startswith("JS:") and "/js/" in name:
                yield name, ""


def named(name):
    return lambda build: [tuple((line + "\t").split("\t")[:2]) for line in lines(build, name)]


def short(text):
    # Two checkouts in folders of two depths.
    return text.replace(f"{WORK}/build-1", "/home/ci/build-17/checkout").replace(f"{WORK}/build-2", "/srv/shop").replace("\0", "\\0")


LANGUAGES = [("c", named("c"), c), ("cxx", named("cxx"), cxx), ("rust-legacy", named("rust-legacy"), rust), ("rust-v0", named("rust-v0"), rust),
             ("go", named("go"), go), ("java", named("java"), java), ("js", profile, js), ("js-map", perf_map, js),
             ("python", named("python"), script), ("ruby", named("ruby"), script), ("php", named("php"), script)]
for language, read, label_of in LANGUAGES:
    builds = [{}, {}]
    for build in (1, 2):
        for name, file in sorted(set(read(build))):
            label = label_of(name)
            if label in ("run", "anonymous"):
                if "/js/" not in name + file and "/python/" not in name:
                    continue
                label += " in " + re.sub(r":\d.*", "", (file or name).split("/")[-1])
            if label is not None:
                builds[build - 1].setdefault(label, []).append((name, file))
    # All kinds of functions, piece by piece, until there are enough.
    rows = 0
    for label in sorted(set(builds[0]) & set(builds[1]), key=lambda label: (re.sub(r"\D", "", label), label)):
        if rows >= ENOUGH:
            break
        first, second = builds[0][label], builds[1][label]
        for at in range(min(max(len(first), len(second)), 12)):
            rows += 1
            pair = first[min(at, len(first) - 1)] + second[min(at, len(second) - 1)]
            print(language, label, *map(short, pair), sep="\t")
