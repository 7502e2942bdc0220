"""What the operators of TensorFlow do to the machine that runs them.

The names are those that TensorFlow 2.21 registers (``operators.json``). A graph may use any operator
that computes; the ones below reach out of the graph and are called by their name.
"""

from __future__ import annotations

import re

from bartizan.lifecycle.develop.scan.formats.operators import tensorflow_operators

PYTHON, FILE, NETWORK, HOST, CUSTOM, COMPILED = (
    f"tensorflow/{each}-operator" for each in ("python", "file", "network", "host", "custom", "compiled")
)

_REACHING = {
    PYTHON: "PyFunc PyFuncStateless EagerPyFunc",
    FILE: """
        WriteFile MatchingFiles MatchingFilesDataset ExperimentalMatchingFilesDataset TextLineDataset
        TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2
        ExperimentalCSVDataset SqlDataset ExperimentalSqlDataset LMDBDataset ExperimentalLMDBDataset LMDBReader
        WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2
        FixedLengthRecordReader FixedLengthRecordReaderV2 ImmutableConst LoadDataset SaveDataset SaveDatasetV2
        SnapshotDataset SnapshotDatasetV2 SnapshotDatasetReader SnapshotNestedDatasetReader SnapshotChunkDataset
        ListSnapshotChunksDataset RecordInput LoadAndRemapMatrix GenerateVocabRemapping DatasetToTFRecord
        ExperimentalDatasetToTFRecord DistributedSave CreateSummaryFileWriter CreateSummaryDbWriter ImportEvent
        DumpTensor CalibrationStatisticsSaver Skipgram FileSystemSetConfiguration DTensorRestoreV2
        """,
    NETWORK: """
        DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset
        RegisterDatasetV2 RpcServer RpcServerStart RpcServerRegister RpcClient RpcCall RpcCheckStatus RpcGetValue
        DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary RemoteCall InitializeTRTResource
        """,
    HOST: "Abort SleepOp SleepIdentityOp WorkerHeartbeat ShutdownDistributedTPU ShutdownTPUSystem",
    COMPILED: "TRTEngineOp NeuronOp TPUExecute TPUExecuteAndUpdateVariables EdgeTpuOp",
}
REACHING = {name: rule for rule, names in _REACHING.items() for name in names.split()}
"""Operators that reach out of the graph, with the rule that says so."""

PATHS: dict[str, tuple[int, ...]] = {
    "ReadFile": (0,),
    "Save": (0,),
    "SaveV2": (0,),
    "SaveSlices": (0,),
    "Restore": (0,),
    "RestoreV2": (0,),
    "RestoreSlice": (0,),
    "MergeV2Checkpoints": (0, 1),
    "InitializeTableFromTextFile": (1,),
    "InitializeTableFromTextFileV2": (1,),
    "CacheDataset": (1,),
    "CacheDatasetV2": (1,),
}
"""Operators that ordinary models use with ordinary paths, and which of their inputs are paths."""
ASSETS = frozenset({"ReadFile", "InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
"""Those among them that read a file which has to be one of the model's assets."""

SHAPES = {
    "Fill": 0, "BroadcastTo": 1, "RandomUniform": 0, "RandomStandardNormal": 0, "TruncatedNormal": 0, "Empty": 0,
    "StatelessRandomUniformV2": 0, "StatelessRandomNormalV2": 0, "ScatterNd": 2, "SparseToDense": 1,
    "TensorListReserve": 1,
}  # fmt: skip
"""Operators that make as many numbers as one of their inputs says."""

SHIPPED = re.compile(
    r"Sentencepiece\w*|FastSentencepiece\w*|(?:TF)?(?:Fast)?(?:Bert|Wordpiece|WordPiece)\w*|WhitespaceTokenize\w*|"
    r"UnicodeScriptTokenize\w*|RegexSplit\w*|(?:Case)?Fold(?:UTF8)\w*|NormalizeUTF8\w*|TFText>\w+|Constrain\w*Sequence|"
    r"MaxSpanningTree|NgramsStringJoin|MstSpanning\w*|RougeL|SentenceFragments\w*|SplitMergeTokenize\w*|"
    r"RoundRobin(?:Trim|GenerateMasks)\w*|SimpleML\w+|Byte(?:Split|Encoder)\w*|Phrase\w+Tokenize\w*"
)
"""Operators of TensorFlow Text and TensorFlow Decision Forests, which compute and no more."""
_PYTHON_NAME = re.compile(r"(?i)py_?func|python|pycall|pickle")
_HOST_NAME = re.compile(r"(?i)shell|exec(?!ut)|system(?!s)|popen|loadlib|dlopen|command|subprocess|spawn")
_FILE_NAME = re.compile(r"(?i)\bio>|file|readdir|unlink")
_NETWORK_NAME = re.compile(r"(?i)socket|http|url|download|grpc|\brpc")


def rule_of(operator: str) -> str:
    """The rule that a graph breaks by using an operator; empty for one that only computes."""
    if rule := REACHING.get(operator):
        return rule
    if operator in tensorflow_operators() or SHIPPED.fullmatch(operator):
        return ""
    for pattern, rule in ((_PYTHON_NAME, PYTHON), (_HOST_NAME, HOST), (_FILE_NAME, FILE), (_NETWORK_NAME, NETWORK)):
        if pattern.search(operator):
            return rule
    return CUSTOM
