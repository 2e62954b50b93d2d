"""Writes databases as ``nsys export --type sqlite`` does, by the schema that its user guide documents.

Sources: the "SQLite Schema Reference" of the Nsight Systems user guide, versions 2021.5 (``OLD``) and 2024.6 (``NEW``,
export schema 3.16.1). Only tables and columns that somebody reads are here.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

_TIMES = "start INT NOT NULL, end INT NOT NULL"
_CALL = f"{_TIMES}, eventClass INT NOT NULL, globalTid INT, nameId INT NOT NULL"
_GPU = (
    f"{_TIMES}, deviceId INT NOT NULL, contextId INT NOT NULL, streamId INT NOT NULL, correlationId INT, globalPid INT"
)
_CUPTI = "CUPTI_ACTIVITY_KIND_"
OLD = {
    "StringIds": "id INTEGER PRIMARY KEY, value TEXT NOT NULL",
    "ThreadNames": "nameId INT NOT NULL, priority INT NOT NULL, globalTid INT",
    "TARGET_INFO_GPU": "vmId INT NOT NULL, id INT NOT NULL, name TEXT NOT NULL, totalMemory INT",
    f"{_CUPTI}RUNTIME": f"{_CALL}, correlationId INT, returnValue INT NOT NULL",
    f"{_CUPTI}KERNEL": f"{_GPU}, demangledName INT NOT NULL, shortName INT NOT NULL, gridX INT NOT NULL",
    f"{_CUPTI}MEMCPY": f"{_GPU}, bytes INT NOT NULL, copyKind INT NOT NULL, srcKind INT, dstKind INT",
    f"{_CUPTI}MEMSET": f"{_GPU}, value INT NOT NULL, bytes INT NOT NULL, memKind INT",
    f"{_CUPTI}SYNCHRONIZATION": f"{_GPU}, syncType INT NOT NULL, eventId INT NOT NULL",
    "NVTX_EVENTS": "start INT NOT NULL, end INT, eventType INT NOT NULL, rangeId INT, category INT, color INT, "
    "text TEXT, globalTid INT, endGlobalTid INT, textId INT, domainId INT",
    "OSRT_API": f"{_CALL}, returnValue INT NOT NULL, nestingLevel INT, callchainId INT NOT NULL",
    "SCHED_EVENTS": "start INT NOT NULL, cpu INT NOT NULL, isSchedIn INT NOT NULL, globalTid INT",
}
NEW = OLD | {
    "PROCESSES": "globalPid INTEGER, pid INTEGER, name TEXT",
    "META_DATA_EXPORT": "name TEXT NOT NULL, value TEXT",
    "TARGET_INFO_SESSION_START_TIME": "utcEpochNs INTEGER, utcTime TEXT, localTime TEXT",
    f"{_CUPTI}KERNEL": OLD[f"{_CUPTI}KERNEL"] + ", greenContextId INT, mangledName INT, graphNodeId INT",
    f"{_CUPTI}GRAPH_TRACE": f"{_GPU}, greenContextId INT, graphId INT NOT NULL, graphExecId INT NOT NULL",
    "CUDA_GRAPH_NODE_EVENTS": f"{_CALL}, graphNodeId INT NOT NULL, originalGraphNodeId INT",
    "CUDA_GRAPH_EVENTS": f"{_CALL}, graphId INT, originalGraphId INT, graphExecId INT",
}
Rows = Mapping[str, Iterable[Mapping[str, Any]]]


def thread(pid: int, tid: int = 0, machine: int = 1) -> int:
    """A globalTid; a globalPid without ``tid``."""
    return machine << 56 | pid << 24 | tid


def write(path: Path, rows: Rows, schema: Mapping[str, str] = NEW, strings: Iterable[str] = ()) -> Path:
    """A new database with these rows; ``strings`` get the ids 1, 2, ... A column without a value is 0, or NULL."""
    path.unlink(missing_ok=True)
    texts = [{"id": i, "value": text} for i, text in enumerate(strings, start=1)]
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN")
        for table, columns in schema.items():
            database.execute(f"CREATE TABLE {table} ({columns})")
            needed = {each.split()[0] for each in columns.split(", ") if "NOT NULL" in each}
            for row in [*rows.get(table, ()), *(texts if table == "StringIds" else ())]:
                full = dict.fromkeys(needed, 0) | row
                marks = ", ".join("?" * len(full))
                database.execute(f"INSERT INTO {table} ({', '.join(full)}) VALUES ({marks})", [*full.values()])
        database.execute("COMMIT")
    return path
