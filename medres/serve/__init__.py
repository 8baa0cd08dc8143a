"""`medres serve`: a server beside a PACS. It receives studies over HTTP and DICOM, has a model
answer, and loses nothing in a crash. Research use only.

    intake/ -> spool -> completion -> scheduler -> model process -> result

Every file is on the disk before it is acknowledged (`spool.py`); a study is complete after a quiet
time or on request (`completion.py`); one process per model answers (`model_process.py`).
"""
