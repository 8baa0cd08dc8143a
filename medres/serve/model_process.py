"""One model in a process of its own: a crash or a hang costs one answer, never the server.

The two sides exchange JSON lines through pipes. The process ends when its input ends, so that it
does not outlive a killed server. Its decode workers are processes of their own again (see
`medres.inference.decoder`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from data_pipelines.errors import CodedError
from medres.errors import ArtefactError, ServeError
from medres.serve.page.drawing import Drawing, drawings
from medres.serve.parts import MadeObject, MakeOrder
from medres.serve.routing import ServedModel
from medres.serve.spool import is_disk_full

if TYPE_CHECKING:
    from medres.inference.predictor import Predictor

START_SECONDS = 300.0  # loading TensorFlow, and the reference outputs of the model
COMMAND = (sys.executable, "-m", "medres.serve.model_process")
TIME_LIMIT, CRASHED, SPOOL_FULL = "time_limit", "model_crashed", "spool_full"
INTERNAL = "internal"  # a fault of our own


@dataclass(frozen=True)
class ModelOptions:
    """What a model process is started with. signature, public_key: paths, to verify the file.
    maker: 'module:function' that makes DICOM objects of a prediction, called as
    `medres.serve.objects.make_objects`; None makes none. fhir: whether a FHIR bundle is written
    beside the objects.
    """

    path: str
    signature: str | None = None
    public_key: str | None = None
    maker: str | None = None
    fhir: bool = False


class ModelProcess:
    """A running model. One request at a time; a process that was ended starts again at the next
    request.
    """

    def __init__(self, options: ModelOptions, *, command: Sequence[str] = COMMAND) -> None:
        """Start and wait until the model has reproduced its reference outputs. command: the
        program, which gets the options as JSON.

        Raises ArtefactError with the code of the refusal, or ServeError (time_limit,
        model_crashed).
        """
        self.options, self._command = options, command
        self._lock = threading.Lock()
        self._start()

    def predict(self, folder: Path, seconds: float) -> list[dict[str, Any]]:
        """One dict per study (CT: series) below the folder, as `medres predict --json`. Raises
        ServeError: time_limit, model_crashed.
        """
        return self._ask({"verb": "predict", "folder": str(folder)}, seconds)

    def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]:
        """Write the DICOM objects of a result to a folder. Raises as `predict`."""
        return self._ask({"verb": "make", **order}, seconds)

    def draw(self, folder: Path, seconds: float) -> list[Drawing]:
        """Pictures of what the model says about the studies below the folder; see
        `medres.serve.page.drawing`. Raises as `predict`.
        """
        return self._ask({"verb": "draw", "folder": str(folder)}, seconds)

    def close(self) -> None:
        """End the process and its workers."""
        with contextlib.suppress(OSError):
            cast(IO[str], self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._kill()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [*self._command, json.dumps(asdict(self.options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the server, which ends it in order
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        arguments = (self._process.stdout, self._answers)
        threading.Thread(target=_pump, args=arguments, daemon=True).start()
        hello = self._answer(START_SECONDS)
        if "error" in hello:
            self.close()
            raise ArtefactError(hello["error"], code=hello["code"])
        self.facts = ServedModel(**hello["model"])

    def _ask(self, request: dict[str, Any], seconds: float) -> list[Any]:
        with self._lock:
            if self._process.poll() is not None:
                self._start()
            try:
                stdin = cast(IO[str], self._process.stdin)
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
            except OSError:
                self._kill()
                raise _crashed() from None
            answer = self._answer(seconds)
        if "error" in answer:
            raise ServeError(answer["error"], code=answer["code"])
        return answer["result"]

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self._kill()
            raise ServeError(
                f"the model did not answer within {seconds:g} seconds", code=TIME_LIMIT
            ) from None
        if not line:
            self._kill()
            raise _crashed()
        return json.loads(line)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            cast(IO[str], self._process.stdin).close()


def _crashed() -> ServeError:
    return ServeError("the model process ended by itself", code=CRASHED)


def _pump(lines: IO[str], answers: queue.SimpleQueue[str]) -> None:
    with lines:
        for line in lines:
            answers.put(line)
    answers.put("")


def run_model(
    options: ModelOptions, requests: Iterable[str], answer: Callable[[Any], None]
) -> None:
    """The process: load the model, then answer requests until there are no more."""
    from medres.inference.loading import load

    try:
        predictor = load(options.path, signature=options.signature, public_key=options.public_key)
    except CodedError as error:
        answer({"error": str(error), "code": error.code})
        return
    with predictor:
        answer({"model": asdict(_facts(predictor))})
        for line in requests:
            answer(_outcome(predictor, options, json.loads(line)))


def _facts(predictor: Predictor) -> ServedModel:
    artefact = predictor.artefact
    return ServedModel(
        artefact.sha256,
        artefact.card.preprocess.sha256,
        artefact.signer,
        artefact.card.model_dump(mode="json"),
    )


def _outcome(predictor: Predictor, options: ModelOptions, request: dict[str, Any]) -> Any:
    """The result, or the code of an error; its text could hold a patient's data."""
    try:
        verb = request.pop("verb")
        if verb == "make":
            from medres.serve.objects import make_all

            order = cast(MakeOrder, request)
            return {"result": make_all(predictor, options.maker, order, fhir=options.fhir)}
        if verb == "draw":
            return {"result": drawings(predictor, request["folder"])}
        predictions = predictor.predict_many(request["folder"])
        return {"result": [prediction.as_dict() for prediction in predictions]}
    except CodedError as error:
        return {"error": str(error), "code": error.code}
    except OSError as error:
        code = SPOOL_FULL if is_disk_full(error) else INTERNAL
        return {"error": f"internal error ({type(error).__name__})", "code": code}
    except Exception as error:  # noqa: BLE001  one study fails, not the model
        return {"error": f"internal error ({type(error).__name__})", "code": INTERNAL}


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(value: Any) -> None:
        answers.write(json.dumps(value, allow_nan=False) + "\n")
        answers.flush()

    run_model(ModelOptions(**json.loads(sys.argv[1])), sys.stdin, answer)


if __name__ == "__main__":
    _main()
