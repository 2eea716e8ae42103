#!/usr/bin/env bash
# Makes the certificates in this directory, with OpenSSL 3: for servers at 127.0.0.1 and localhost, each rejected by ring or webpki for
# another reason. NAME.pem holds certificate and key, NAME-ca.pem the CA that issued it. They are checked in because rcgen, which makes
# the other certificates of the tests, can't make most of these.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
names='subjectAltName=DNS:localhost,IP:127.0.0.1'
server="basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
$names"

# NAME KIND: a key, such as of the kind EC:P-521 or RSA:1024.
key() {
  case $2 in
    EC:*) openssl genpkey -quiet -algorithm EC -pkeyopt "ec_paramgen_curve:${2#EC:}" -out "$1" ;;
    RSA:*) openssl genpkey -quiet -algorithm RSA -pkeyopt "rsa_keygen_bits:${2#RSA:}" -out "$1" ;;
    *) openssl genpkey -quiet -algorithm "$2" -out "$1" ;;
  esac
}

# NAME CA-KIND DIGEST SERVER-KIND [EXTENSIONS [OPTIONS…]]: the options are those of the CA.
issue() {
  local name=$1 kind=$2 digest=$3 own=$4 extensions=${5-$server}
  shift 5 2>/dev/null || shift $#
  key "$work/ca.key" "$kind"
  key "$work/key" "$own"
  openssl req -x509 -new -key "$work/ca.key" -days 36500 -subj "/CN=$name CA" -out "$name-ca.pem" \
    -addext 'keyUsage=critical,keyCertSign' "$@"
  openssl req -new -key "$work/key" -subj "/CN=$name" -out "$work/request"
  if [ "$digest" = none ]; then digest=(); else digest=("-$digest"); fi
  openssl x509 -req -in "$work/request" -CA "$name-ca.pem" -CAkey "$work/ca.key" -days 36500 "${digest[@]}" \
    -extfile <(printf '%s\n' "$extensions") -out "$work/certificate" 2>/dev/null
  cat "$work/certificate" "$work/key" >"$name.pem"
}

issue p521-ca EC:P-521 sha512 EC:P-256
issue p521-ca-sha256 EC:P-521 sha256 EC:P-256
issue p384-ca-sha512 EC:P-384 sha512 EC:P-256
issue p521-server EC:P-256 sha256 EC:P-521
issue ed448-ca ED448 none EC:P-256
issue rsa-1024-ca RSA:1024 sha256 EC:P-256
issue sha1 RSA:2048 sha1 EC:P-256
issue version-1 EC:P-256 sha256 EC:P-256 ''
issue for-clients EC:P-256 sha256 EC:P-256 "${server/serverAuth/clientAuth}"
issue other-names EC:P-256 sha256 EC:P-256 "$server" -addext 'nameConstraints=critical,permitted;DNS:example.com'
issue critical EC:P-256 sha256 EC:P-256 "$server
1.2.3.4=critical,ASN1:UTF8String:unknown"

# A CA's own certificate, used as a server's.
key "$work/key" EC:P-256
openssl req -x509 -new -key "$work/key" -days 36500 -subj '/CN=ca-as-server' -out ca-as-server-ca.pem -addext "$names"
cat ca-as-server-ca.pem "$work/key" >ca-as-server.pem
