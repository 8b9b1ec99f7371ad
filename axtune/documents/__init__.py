"""Documents as text: what PDF, DOCX, HTML, HWPX, HWP, XLSX, PPTX and text files say, offline.

A module for each format turns bytes into lines in reading order; `axtune.documents.importing` walks
folders and archives and writes the corpus. No macro, script or external entity of a document runs.
"""
