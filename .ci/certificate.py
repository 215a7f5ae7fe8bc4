"""A certificate that signs itself, for scripts that start a server with TLS; for nobody else to trust."""
import pathlib
import subprocess


def make(folder):
    """The files of a certificate for localhost and 127.0.0.1, and of its key."""
    certificate, key = pathlib.Path(folder) / "certificate.pem", pathlib.Path(folder) / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, stderr=subprocess.DEVNULL)
    return str(certificate), str(key)
