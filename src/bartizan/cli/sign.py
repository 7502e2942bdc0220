"""``bartizan sign`` and ``bartizan verify``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from bartizan.cli.digests import cached_files, digest_options, tell_contradictions
from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.core.digest import manifest_root
from bartizan.core.errors import InputError, TrustError
from bartizan.core.keys import load_public
from bartizan.lifecycle.develop.certificates import (
    MAX_ROOTS,
    Holder,
    certificate_bundle,
    holder_of,
    read_certificates,
)
from bartizan.lifecycle.develop.sign import sign_manifest, verify_bundle

MAX_PEM_BYTES = 4 * 1024 * 1024
PEM = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Signature file.")
@click.option("--key", default="service", show_default=True, help="Name of the key that signs.")
@click.option("--certificate", type=PEM, help="Certificate of that key, PEM: verifiers need only its root.")
@click.option("--chain", type=PEM, multiple=True, help="Certificates between it and the root, PEM.")
@digest_options
@as_json
@click.pass_context
def sign(
    ctx: click.Context,
    *,
    path: Path,
    output: Path,
    key: str,
    certificate: Path | None,
    chain: tuple[Path, ...],
    cache: Path | None,
    full: bool,
    as_json: bool,
) -> int:
    """Sign a file or folder: an OpenSSF Model Signing v1.0 bundle that other tools verify too.

    Files that did not change since they were last digested are not read again; --full reads them all.

    \b
    Example: bartizan sign model -o model.sig
             bartizan verify model --signature model.sig --key .bartizan/keys/service.pub.pem
    """
    space = workspace(ctx)
    if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
        raise InputError(f"{output} lies inside {path}", remedy="write the signature beside the folder, not into it.")
    signer = space.signer(key)
    with cached_files(cache, full=full) as files:
        manifest = files.manifest(path)
    body, bundle = sign_manifest(path.resolve().name, manifest, signer)
    if certificate is not None:
        listed = [one for file in (certificate, *chain) for one in read_certificates(_pem(file), str(file))]
        bundle = certificate_bundle(body, signer.public_pem, listed)
    elif chain:
        raise InputError("--chain needs --certificate", remedy="give the signer's own certificate too.")
    output.write_bytes(bundle)
    root = manifest_root(manifest)
    if as_json:
        show_json({"root": root, "files": len(manifest), "signature": output, "contradicted": files.contradicted})
    else:
        say(f"signed {len(manifest)} files with root {root[:12]}; wrote {output}")
    return tell_contradictions(files)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--signature", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Signature file.")
@click.option("--key", type=PEM, help="Signer's public key, PEM.")
@click.option("--trust-root", type=PEM, help="Or: certificates that the signer's must lead to, PEM.")
@click.option("--identity", default="", help="With --trust-root: name that the signer's certificate must be for.")
@click.option("--at", "at", type=click.DateTime(), help="With --trust-root: when the certificate must be valid (UTC).")
@as_json
@click.pass_context
def verify(
    ctx: click.Context,
    *,
    path: Path,
    signature: Path,
    key: Path | None,
    trust_root: Path | None,
    identity: str,
    at: datetime | None,
    as_json: bool,
) -> int:
    """Verify an OpenSSF Model Signing bundle over a file or folder. Needs no ledger.

    Give the signer's public key, or the root certificates that you trust. Every file is read, whatever was
    digested before. Exit code 1 when files differ from what was signed.

    \b
    Example: bartizan verify model --signature model.sig --trust-root ca.pem --identity ml-team@hospital.example
    """
    if (key is None) == (trust_root is None):
        raise InputError("give either --key or --trust-root", remedy="what do you know of the signer: key or root?")
    bundle = read_small(signature)
    holder = _holder(bundle, trust_root, identity, at) if trust_root else None
    pem = holder.public_pem if holder else _pem(key).decode(errors="replace") if key else ""
    load_public(pem)
    differences = verify_bundle(bundle, pem, workspace(ctx).files.manifest(path))
    if as_json:
        names = {"signer": holder.names} if holder else {}
        show_json({"verified": not differences, "differences": differences, **names})
    elif differences:
        table(("WHAT", "FILE"), [(item.what, item.name) for item in differences])
    else:
        by = f", signed by {', '.join(holder.names)}" if holder else ""
        say(f"verified: every file is as it was signed{by}")
    return FOUND if differences else OK


def _holder(bundle: bytes, trust_root: Path, identity: str, at: datetime | None) -> Holder:
    roots = read_certificates(_pem(trust_root), str(trust_root), MAX_ROOTS)
    holder = holder_of(bundle, roots, at.replace(tzinfo=UTC) if at else datetime.now(UTC))
    if identity and identity not in holder.names:
        raise TrustError(
            f"the signer is {', '.join(holder.names) or 'nobody'}, not {identity}", remedy="do not use the files."
        )
    return holder


def _pem(path: Path) -> bytes:
    return read_small(path, MAX_PEM_BYTES)
