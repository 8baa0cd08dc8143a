"""A model of medres in a FastAPI server of your own: one DICOM file in, the answer out as JSON.

    pip install "medres[cpu]" fastapi uvicorn
    MEDRES_MODEL=run/model.keras uvicorn app:app
    curl --data-binary @image.dcm http://127.0.0.1:8000/predict

It keeps what `medres.load` gives: checks of the model file, isolated decoding, refusals with
codes. It has no queue, no identity of studies across requests, no log-in and no TLS: for these see
`medres serve`.
Research use only. Not a medical device.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from starlette.concurrency import run_in_threadpool

import medres

MAX_BYTES = 256 << 20  # FastAPI itself has no limit


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with medres.load(os.environ["MEDRES_MODEL"]) as predictor:  # a refused file ends the start
        app.state.predictor = predictor
        yield


app = FastAPI(title="A model of medres, research use only", lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request) -> dict:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            raise HTTPException(413, f"more than {MAX_BYTES} bytes")
    # several threads may share a predictor; a study of several files is a list of bytes
    prediction = await run_in_threadpool(request.app.state.predictor.predict, bytes(data))
    return {
        "research_use_only": request.app.state.predictor.card.intended_use,
        "refused": prediction.refused,  # a sentence, or null
        "code": prediction.code,
        "probabilities": prediction.probabilities,
        "thresholds": prediction.thresholds,
        "decisions": prediction.decisions,
        "conformal": prediction.conformal,
        "model_sha256": prediction.model_sha256,
    }
