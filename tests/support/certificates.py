"""Make a certificate authority for one test, and the certificate of a server."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


def certify(folder: Path, *names: str) -> str:
    """Write `authority.pem`, `server.pem` and `server.key` for these host names or addresses into the folder.

    Returns the path of the authority's certificate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _builder("Test authority", authority_key.public_key(), issuer="Test authority")
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    authority = authority.add_extension(usage, critical=True)
    own = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = authority.add_extension(own, critical=False)
    server = _builder(names[0], server_key.public_key(), issuer="Test authority")
    server = server.add_extension(x509.SubjectAlternativeName(map(_name, names)), critical=False)
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    server = server.add_extension(by, critical=False)
    for name, builder in (("authority.pem", authority), ("server.pem", server)):
        signed = builder.sign(authority_key, hashes.SHA256())
        (folder / name).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(folder / "authority.pem")


def _builder(subject: str, key: ec.EllipticCurvePublicKey, *, issuer: str) -> x509.CertificateBuilder:
    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(named(issuer), named(subject), key, x509.random_serial_number())
    return builder.not_valid_before(now - DAY).not_valid_after(now + DAY)


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
