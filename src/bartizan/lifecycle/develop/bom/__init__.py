"""ML bills of materials: what a system is made of, in CycloneDX 1.7.

``writing`` makes one, ``reading`` reads anybody's, ``difference`` compares two.
"""
