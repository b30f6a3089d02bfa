"""Typed formats: how a value becomes one local file and comes back.

>>> format_, extension = format_for_output(dict[str, int], medium="local")
>>> format_.name, extension
('json', 'json')
"""

from __future__ import annotations

from airflow_provider_dbnd.core.formats.annotations import data_type, type_name
from airflow_provider_dbnd.core.formats.base import ALLOW_PICKLE, Draft, Drafts, Format, Written
from airflow_provider_dbnd.core.formats.containers import is_spark_frame
from airflow_provider_dbnd.core.formats.conversion import can_convert, convert_in_memory
from airflow_provider_dbnd.core.formats.many import formats_for_inputs, read_many
from airflow_provider_dbnd.core.formats.registry import (
    PICKLES,
    FormatRow,
    extension_of,
    format_for_input,
    format_for_output,
    formats,
    has_own_format,
    is_data_type,
    is_stored_type,
    register_format,
)

__all__ = [
    "ALLOW_PICKLE",
    "PICKLES",
    "Draft",
    "Drafts",
    "Format",
    "FormatRow",
    "Written",
    "can_convert",
    "convert_in_memory",
    "data_type",
    "extension_of",
    "format_for_input",
    "format_for_output",
    "formats",
    "formats_for_inputs",
    "has_own_format",
    "is_data_type",
    "is_spark_frame",
    "is_stored_type",
    "read_many",
    "register_format",
    "type_name",
]
