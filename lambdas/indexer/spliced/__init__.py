"""Large documents, stored in segments that are compressed separately and joined into one file.

Words used in these modules:

- *entry*: one key and value of a document, such as a filename and its record;
- *section*: a mapping of entries (``packages``, ``packages.conda``, ``v3.conda``);
- *segment*: consecutive entries of a section, sorted by (package name, key);
- *separators*: the text before, between and after the sections;
- *header*: the fields of the document outside its sections (``info``, ``removed``);
- *chunk*: a segment or a separator, compressed as a unit;
- *table*: the list of a document's chunks, with sizes and digests;
- *segmented document*: a table, and the content of those chunks that are new.
"""
