"""``bartizan sign`` and ``bartizan verify``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.core.digest import manifest_root
from bartizan.core.errors import InputError
from bartizan.core.keys import load_public
from bartizan.lifecycle.develop.sign import sign_manifest, verify_bundle


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Signature file.")
@click.option("--key", default="service", show_default=True, help="Name of the key that signs.")
@click.pass_context
def sign(ctx: click.Context, path: Path, output: Path, key: str) -> None:
    """Sign a file or folder: an OpenSSF Model Signing v1.0 bundle that other tools verify too.

    \b
    Example: bartizan sign model -o model.sig
             bartizan verify model --signature model.sig --key .bartizan/keys/service.pub.pem
    """
    space = workspace(ctx)
    if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
        raise InputError(f"{output} lies inside {path}", remedy="write the signature beside the folder, not into it.")
    signer = space.signer(key)
    manifest = space.files.manifest(path)
    _, bundle = sign_manifest(path.resolve().name, manifest, signer)
    output.write_bytes(bundle)
    say(f"signed {len(manifest)} files with root {manifest_root(manifest)[:12]}; wrote {output}")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--signature", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Signature file.")
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Signer's public key, PEM.")
@as_json
@click.pass_context
def verify(ctx: click.Context, path: Path, signature: Path, key: Path, as_json: bool) -> int:
    """Verify an OpenSSF Model Signing bundle over a file or folder. Needs no ledger.

    Exit code 1 when files differ from what was signed.
    """
    pem = read_small(key, 64 * 1024).decode(errors="replace")
    load_public(pem)
    differences = verify_bundle(read_small(signature), pem, workspace(ctx).files.manifest(path))
    if as_json:
        show_json({"verified": not differences, "differences": differences})
    elif differences:
        table(("WHAT", "FILE"), [(item.what, item.name) for item in differences])
    else:
        say("verified: every file is as it was signed")
    return FOUND if differences else OK
