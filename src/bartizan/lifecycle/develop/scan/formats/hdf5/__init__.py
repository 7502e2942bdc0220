"""HDF5 files: a bounded reader of their structure, and what is judged on the way.

Format: "HDF5 File Format Specification Version 3.0" (The HDF Group), sections II to IV; the section
of each structure is named where it is read. Nothing is unpacked, and numbers are stepped over.
"""
