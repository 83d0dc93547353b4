//! Asks over HTTP/1.1 and listens to the stream. Connections are kept and used again, as real clients do.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpStream;

use crate::recording::{BadEvent, sentence};
use crate::sse::{EndlessLine, Lines};
use crate::{Endpoint, Recording, Sample, Target};

/// How much of a refusal is kept.
const MAX_REFUSAL: usize = 400;

/// Why a request has no numbers. It counts as failed, with this as its reason.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    #[error("no request can be made of this address and key: {0}")]
    Request(String),
    #[error("the connection broke before an answer: {0}")]
    Http(String),
    #[error("answered {0}: {1}")]
    Status(u16, String),
    #[error("the stream was cut: {0}")]
    Cut(String),
    #[error("an event of the stream is malformed: {0}")]
    Malformed(String),
    #[error("the server failed the request: {0}")]
    Server(String),
    #[error("no end after {0:?}")]
    Timeout(Duration),
}

impl From<BadEvent> for Failure {
    fn from(event: BadEvent) -> Self {
        match event {
            BadEvent::Malformed(why) => Self::Malformed(why),
            BadEvent::Server(why) => Self::Server(why),
        }
    }
}

impl From<EndlessLine> for Failure {
    fn from(_: EndlessLine) -> Self {
        Self::Malformed("a line without end".to_owned())
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// A client of one server and one model.
pub struct Client {
    target: Target,
    model: String,
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

impl Client {
    /// `timeout` is for a whole request, so that a server that hangs ends the measurement.
    pub fn new(target: Target, model: impl Into<String>, timeout: Duration) -> Self {
        Self { target, model: model.into(), timeout, idle: Mutex::default() }
    }

    pub fn model(&self) -> &str {
        &self.model
    }

    /// The first model that the server names.
    ///
    /// # Errors
    /// If it cannot be asked, or names none.
    pub async fn first_model(target: &Target) -> Result<String, Failure> {
        let client = Self::new(target.clone(), "", Duration::from_secs(30));
        let models = client.json(Method::GET, "/v1/models", &Value::Null).await?;
        let id = models["data"][0]["id"].as_str();
        id.map(str::to_owned).ok_or_else(|| Failure::Malformed("the server names no model".to_owned()))
    }

    /// Prompt and answer of one request, in tokens, as far as the server says so.
    pub(crate) async fn max_model_len(&self) -> Option<u32> {
        let models = self.json(Method::GET, "/v1/models", &Value::Null).await.ok()?;
        let ours = models["data"].as_array()?.iter().find(|model| model["id"] == self.model.as_str())?;
        limit(ours)
    }

    /// Tokens of a prompt with all that the endpoint puts around it, and the server's limit if it says so.
    pub(crate) async fn count_prompt(&self, prompt: &str) -> Result<(u32, Option<u32>), Failure> {
        self.tokenize(self.prompt(prompt)).await
    }

    /// Tokens of a text alone.
    pub(crate) async fn count(&self, text: &str) -> Result<(u32, Option<u32>), Failure> {
        self.tokenize(json!({"prompt": text, "add_special_tokens": false})).await
    }

    /// vLLM's endpoint, which stands outside of `/v1`.
    async fn tokenize(&self, mut body: Value) -> Result<(u32, Option<u32>), Failure> {
        body["model"] = json!(self.model);
        let said = self.json(Method::POST, "/tokenize", &body).await?;
        let count = said["count"].as_u64().and_then(|count| count.try_into().ok());
        let count = count.ok_or_else(|| Failure::Malformed("the server counts no tokens".to_owned()))?;
        Ok((count, limit(&said)))
    }

    /// Asks for one answer and times it, from here on.
    ///
    /// # Errors
    /// If it does not come, or does not come whole.
    pub async fn ask(&self, sample: &Sample) -> Result<Recording, Failure> {
        let body = Bytes::from(self.body(sample).to_string());
        let recording = Recording::new(Instant::now());
        tokio::time::timeout(self.timeout, self.stream(body, recording))
            .await
            .unwrap_or(Err(Failure::Timeout(self.timeout)))
    }

    /// Greedy, of one length whatever the model would say, with the server's own counts at the end.
    fn body(&self, sample: &Sample) -> Value {
        let mut body = json!({
            "model": self.model,
            "max_tokens": sample.output_len,
            "min_tokens": sample.output_len,
            "ignore_eos": true,
            "temperature": 0.0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let (Some(body), Value::Object(prompt)) = (body.as_object_mut(), self.prompt(&sample.prompt)) {
            body.extend(prompt);
        }
        body
    }

    fn prompt(&self, text: &str) -> Value {
        match self.target.endpoint {
            Endpoint::Completions => json!({ "prompt": text }),
            Endpoint::Chat => json!({"messages": [{"role": "user", "content": text}]}),
        }
    }

    async fn stream(&self, body: Bytes, mut recording: Recording) -> Result<Recording, Failure> {
        let (response, connection) = self.exchange(Method::POST, self.target.endpoint.path(), body).await?;
        let (mut body, mut lines) = (response.into_body(), Lines::default());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Cut(error.to_string()))?;
            let now = Instant::now();
            if let Some(bytes) = frame.data_ref() {
                lines.feed(bytes, |data| Ok::<(), Failure>(recording.take(data, now)?))?;
            }
        }
        self.keep(connection);
        if recording.is_complete() {
            Ok(recording)
        } else {
            Err(Failure::Cut("it ended before its last event".to_owned()))
        }
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let (response, connection) = self.exchange(method, path, body).await?;
        let body = response.into_body().collect().await.map_err(|error| Failure::Cut(error.to_string()))?.to_bytes();
        self.keep(connection);
        serde_json::from_slice(&body).map_err(|error| Failure::Malformed(error.to_string()))
    }

    /// The head of a good answer. A kept connection that the server has closed meanwhile is replaced; the time for that
    /// counts.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        let request = || self.request(&method, path, body.clone());
        while let Some(mut connection) = self.kept() {
            if connection.ready().await.is_ok()
                && let Ok(response) = connection.send_request(request()?).await
            {
                return Ok((checked(response).await?, connection));
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request()?).await.map_err(|error| Failure::Http(error.to_string()))?;
        Ok((checked(response).await?, connection))
    }

    fn request(&self, method: &Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.prefix))
            .header(header::HOST, &self.target.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.target.api_key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        request.body(Full::new(body)).map_err(|error| Failure::Request(error.to_string()))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let refused = |error: std::io::Error| Failure::Connect(self.target.authority.clone(), error.to_string());
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port)).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| Failure::Http(error.to_string()))?;
        // Whoever waits for an answer on it hears of its end.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }

    fn kept(&self) -> Option<Connection> {
        self.idle.lock().expect("nothing panics while it holds the connections").pop()
    }

    fn keep(&self, connection: Connection) {
        if !connection.is_closed() {
            self.idle.lock().expect("nothing panics while it holds the connections").push(connection);
        }
    }
}

fn limit(said: &Value) -> Option<u32> {
    said["max_model_len"].as_u64()?.try_into().ok()
}

/// The answer if it is a good one, or the server's reason.
async fn checked(response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let said = serde_json::from_slice(&body)
        .map_or_else(|_| String::from_utf8_lossy(&body).trim().to_owned(), |value| sentence(&value));
    Err(Failure::Status(status.as_u16(), said.chars().take(MAX_REFUSAL).collect()))
}
