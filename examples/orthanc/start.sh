#!/usr/bin/env bash
# Start Orthanc (Debian: apt install orthanc orthanc-dicomweb) on loopback beside `medres serve`.
#
#     examples/orthanc/start.sh MODEL.keras [FOLDER]
#
# Nothing is installed. Everything is kept in FOLDER (default ./orthanc-medres, mode 0700). Ctrl-C
# stops both. Ports can be changed: HTTP_PORT, DICOM_PORT, MEDRES_HTTP_PORT, MEDRES_DICOM_PORT.
set -euo pipefail

model=${1:?give a model file: examples/orthanc/start.sh MODEL.keras [FOLDER]}
folder=${2:-./orthanc-medres}
http=${HTTP_PORT:-8042}
dicom=${DICOM_PORT:-4242}
medres_http=${MEDRES_HTTP_PORT:-8080}
medres_dicom=${MEDRES_DICOM_PORT:-11112}
plugins=${ORTHANC_PLUGINS:-/usr/share/orthanc/plugins}
here=$(cd "$(dirname "$0")" && pwd)

command -v Orthanc >/dev/null || { echo "Orthanc is not installed: apt install orthanc orthanc-dicomweb" >&2; exit 1; }
command -v medres >/dev/null || { echo 'medres is not installed: pip install "medres[serve,cpu]"' >&2; exit 1; }
mkdir -p "$folder/storage"
chmod 700 "$folder"
folder=$(cd "$folder" && pwd)
sed -e "s#@FOLDER@#$folder#" -e "s#@PLUGINS@#$plugins#" -e "s#@HTTP@#$http#" \
    -e "s#@DICOM@#$dicom#" -e "s#@MEDRES@#$medres_dicom#" "$here/orthanc.json.in" > "$folder/orthanc.json"

Orthanc "$folder/orthanc.json" 2> "$folder/orthanc.log" &
orthanc=$!
trap 'kill "$orthanc" 2>/dev/null || true; wait "$orthanc" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  if (exec 3<> "/dev/tcp/127.0.0.1/$http") 2>/dev/null; then break; fi
  kill -0 "$orthanc" 2>/dev/null || { echo "Orthanc did not start: see $folder/orthanc.log" >&2; exit 1; }
  sleep 0.1
done
echo "Orthanc: http://127.0.0.1:$http (web page), ORTHANC@127.0.0.1:$dicom (DICOM)"
medres serve "$model" --spool "$folder/spool" --http "127.0.0.1:$medres_http" \
    --dicom "127.0.0.1:$medres_dicom" --allow-aet ORTHANC \
    --pacs-dicomweb "http://127.0.0.1:$http/dicom-web" --quiet-seconds "${QUIET_SECONDS:-10}"
