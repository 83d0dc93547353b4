"""A client of the server that TOKENMILL_BASE_URL names, and the first model it serves."""

import os

import openai
import pytest

BASE_URL = os.environ.get("TOKENMILL_BASE_URL", "")
API_KEY = os.environ.get("TOKENMILL_API_KEY", "none")


def pytest_report_header():
    return f"openai {openai.__version__} against {BASE_URL}"


def pytest_configure():
    if not BASE_URL:
        pytest.exit("TOKENMILL_BASE_URL is not set: no server to test", returncode=2)


@pytest.fixture(scope="session")
def options():
    """How to build a client; retries would hide a refusal."""
    return {"base_url": BASE_URL, "api_key": API_KEY, "max_retries": 0, "timeout": 60.0}


@pytest.fixture(scope="session")
def client(options):
    with openai.OpenAI(**options) as client:
        yield client


@pytest.fixture(scope="session")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture
def chat(client, model):
    """One question with one seed; keyword arguments go to the request."""

    def ask(question="Name three rivers.", **fields):
        fields = {"max_tokens": 12, "temperature": 0.7, "seed": 7} | fields
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], **fields
        )

    return ask
