//! From tokens to the residual stream, and from it to logits; often one matrix.

use std::rc::Rc;

use tensor::{Act, ActSet, Backend, Role};

use crate::{Loader, NnError};

/// A row per token.
pub struct Embedding<B: Backend> {
    table: Rc<B::Weight>,
    scale: f32,
}

/// Projects hidden states to the vocabulary.
pub struct Head<B: Backend> {
    weight: Rc<B::Weight>,
}

impl<B: Backend> Embedding<B> {
    /// Loads `name [vocab_size, hidden_size]`; rows are multiplied by `scale`. `role` is [`Role::Head`] where the head
    /// shares the matrix.
    pub fn load(
        loader: &mut Loader<'_, B>,
        name: &str,
        (vocab_size, hidden_size): (usize, usize),
        scale: f32,
        role: Role,
    ) -> Result<Self, NnError> {
        let table = loader.weight(&[(name.to_owned(), vocab_size)], hidden_size, role)?;
        Ok(Self { table: Rc::new(table), scale })
    }

    /// `[T, hidden_size]` for the step's tokens.
    pub fn forward(&self, b: &mut B) -> B::Buf {
        b.embed(&self.table, self.scale)
    }

    /// The head that shares this matrix.
    pub fn tied_head(&self) -> Head<B> {
        Head { weight: Rc::clone(&self.table) }
    }
}

impl<B: Backend> Head<B> {
    /// Loads `name [vocab_size, hidden_size]`.
    pub fn load(
        loader: &mut Loader<'_, B>,
        name: &str,
        (vocab_size, hidden_size): (usize, usize),
    ) -> Result<Self, NnError> {
        let weight = loader.weight(&[(name.to_owned(), vocab_size)], hidden_size, Role::Head)?;
        Ok(Self { weight: Rc::new(weight) })
    }

    pub fn wants(&self) -> ActSet {
        B::wants(&self.weight)
    }

    /// `[rows, vocab_size]`.
    pub fn forward(&self, b: &mut B, x: &Act<B>) -> B::Buf {
        b.linear(x, &self.weight, None)
    }
}
