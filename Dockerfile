FROM python:3.13.18-slim

RUN useradd --system --uid 1000 --home-dir /app app
WORKDIR /app

COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes -r requirements.txt

COPY alembic.ini .
COPY contacts_api contacts_api
COPY migrations migrations

USER 1000
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]

# Require a database: data of the embedded PostgreSQL would be lost with the container.
CMD ["sh", "-c", "\
    : \"${DATABASE_URL:?is not set, and must be: postgresql://user:password@host/database}\" && \
    : \"${JWT_SECRET:?is not set, and must be, to 32 bytes or more: openssl rand -hex 32}\" && \
    python -m contacts_api migrate && \
    exec python -m contacts_api serve --host 0.0.0.0 --port 8000"]
