"""Packages of other makers, fetched from their registries into a folder; none of their install scripts is run."""

import subprocess
import sys

# What a script ends with when it cannot fetch what it runs.
SKIPPED = 77


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def install(folder, python_packages, node_packages):
    """Both registries; answers the interpreter and the folder of the modules."""
    python = folder / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *python_packages]
        if subprocess.run(pip).returncode != 0:
            skip("the Python packages cannot be installed; is PyPI reachable?")
    node = folder / "node"
    if not (node / "node_modules").exists():
        node.mkdir(parents=True, exist_ok=True)
        (node / "package.json").write_text("{}")
        npm = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", *node_packages]
        try:
            failed = subprocess.run(npm, cwd=node).returncode != 0
        except FileNotFoundError:
            skip("there is no npm")
        if failed:
            skip("the Node packages cannot be installed; is the npm registry reachable?")
    return python, node / "node_modules"
