"""Checks the dependency tree against deny.toml: licences, sources, banned crates.

A small part of cargo-deny, so that the check needs nothing but Python and cargo.
"""

import json
import re
import subprocess
import sys
import tomllib


def allowed(expression, allow):
    """Whether an SPDX expression (with the old `/` for OR) can be met by `allow`."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        ok = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            other = both()
            ok = ok or other
        return ok

    def both():
        ok = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            other = one()
            ok = ok and other
        return ok

    def one():
        token = tokens.pop(0)
        if token == "(":
            ok = either()
            tokens.pop(0)
            return ok
        if tokens and tokens[0] == "WITH":
            token = f"{token} {tokens.pop(0)} {tokens.pop(0)}"
        return token in allow

    return either()


def metadata(target, features):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    output = subprocess.run(command + ["--features", ",".join(features)], check=True, capture_output=True)
    return json.loads(output.stdout)


def problems(tree, rules):
    names = {package["id"]: package["name"] for package in tree["packages"]}
    used_by = {}
    for node in tree["resolve"]["nodes"]:
        for dependency in node["dependencies"]:
            used_by.setdefault(names[dependency], set()).add(names[node["id"]])
    in_tree = {node["id"] for node in tree["resolve"]["nodes"]}
    banned = {rule["name"]: set(rule.get("wrappers", [])) for rule in rules["bans"]["deny"]}
    for package in (p for p in tree["packages"] if p["id"] in in_tree):
        name = f"{package['name']} {package['version']}"
        if not allowed(package["license"] or "none", rules["licenses"]["allow"]):
            yield f"{name}: licence {package['license']} is not allowed"
        source = package["source"] or "path"
        if not source.startswith(("path", "registry+https://github.com/rust-lang/crates.io-index")):
            yield f"{name}: source {source} is not allowed"
        users = used_by.get(package["name"], set())
        if package["name"] in banned and not (users and users <= banned[package["name"]]):
            yield f"{name}: banned, used by {', '.join(sorted(users)) or 'the workspace'}"


def self_test():
    assert allowed("MIT OR GPL-3.0", ["MIT"]) and allowed("(A OR B) AND C", ["B", "C"])
    assert allowed("Apache-2.0 WITH LLVM-exception", ["Apache-2.0 WITH LLVM-exception"])
    assert not allowed("MIT AND GPL-3.0", ["MIT"]) and not allowed("none", ["MIT"])
    assert allowed("MIT/Apache-2.0", ["Apache-2.0"])


def main():
    self_test()
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    found = set()
    crates = 0
    for target in rules["graph"]["targets"]:
        tree = metadata(target, rules["graph"]["features"])
        crates = max(crates, len(tree["resolve"]["nodes"]))
        found.update(problems(tree, rules))
    for problem in sorted(found):
        print(problem, file=sys.stderr)
    print(f"{crates} crates, {len(found)} problems")
    sys.exit(bool(found))


main()
